"""Any Stable-Baselines3 algorithm can be planned for: its stock PPO under a rotation of categories."""

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO

from rapport.agents.planning.controls import RotationPlanner
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.hyper_action import HyperActionEnv
from rapport.agents.sb3 import GymnasiumVecEnv
from rapport.envs.session.kuairand import kuairand_vector_env

sessions = kuairand_vector_env(64, autoreset_mode=AutoresetMode.SAME_STEP, data="twin")
data = sessions.core.data
planner = RotationPlanner(data.catalog.category_sizes, np.random.default_rng(0))
planned = PlannedVectorEnv(sessions, data, planner)
items = StateEncoder(data, EncoderSettings())
env = GymnasiumVecEnv(HyperActionEnv(planned, items, data.catalog.category))

agent = PPO("MultiInputPolicy", env, n_steps=20, batch_size=320, seed=0, device="cpu")
agent.learn(5_000)
ended = agent.ep_info_buffer
print(f"{len(ended)} sessions, mean length {np.mean([e['l'] for e in ended]):.1f} slates")
