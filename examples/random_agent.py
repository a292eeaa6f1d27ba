"""Ten sessions with a random agent: the shortest use of an environment."""

import gymnasium as gym

import rapport  # noqa: F401 - registers the environments

env = gym.make("rapport/KuaiRand-v0", data="twin")
for session in range(10):
    observation, info = env.reset(seed=session)
    env.action_space.seed(session)
    clicks, slates, left = 0.0, 0, False
    while not left:
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        clicks, slates, left = clicks + reward, slates + 1, terminated or truncated
    print(f"user {info['user']:>4} left after {slates} slates; mean click rate {clicks / slates:.2f}")
