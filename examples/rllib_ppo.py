"""Ray RLlib trains on the same environment: PPO on single items of a small statistical twin, for a minute.

That is long enough to learn which items are clicked, not to look ahead: the discount is 0.

Needs the ``rllib`` extra: pip install "rapport-gym[rllib]"
"""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import gymnasium as gym
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.tune.registry import register_env

ITEMS = 100


def make(config):
    """One user at a time, one item at a time; the twin is drawn afresh wherever RLlib makes environments."""
    import rapport

    data = rapport.twin(n_users=400, n_items=ITEMS, seed=0)
    return gym.make("rapport/KuaiRand-v0", data=data, slate_size=None, **config)


register_env("kuairand", make)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
config = (
    PPOConfig()
    .environment("kuairand", env_config={"history": 1})
    .env_runners(
        num_env_runners=0,
        num_envs_per_env_runner=32,
        # RLlib's default network takes one flat array; the observations are a Dict of ids and codes.
        env_to_module_connector=lambda *_, **__: [FlattenObservations(), MeanStdFilter()],
    )
    .rl_module(model_config={"vf_share_layers": False, "fcnet_hiddens": [64]})
    .training(
        train_batch_size_per_learner=2_000,
        minibatch_size=250,
        num_epochs=10,
        lr=3e-3,
        gamma=0.0,
        use_kl_loss=False,
        vf_loss_coeff=0.1,
    )
    .debugging(seed=0)
)
algorithm = config.build_algo()
for iteration in range(10):
    sessions = algorithm.train()["env_runners"]
    length, clicks = sessions["episode_len_mean"], sessions["episode_return_mean"]
    print(f"iteration {iteration}: mean length {length:.1f} items, {clicks / length:.0%} clicked", flush=True)
algorithm.stop()
ray.shutdown()
