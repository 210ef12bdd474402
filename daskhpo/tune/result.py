"""`ray.tune.result`: names of what Ray Tune adds to a report, and of its files."""

from daskhpo.tune.names import ITERATION

TRAINING_ITERATION = ITERATION
DONE, SHOULD_CHECKPOINT = "done", "should_checkpoint"
TRIAL_ID, EXPERIMENT_TAG = "trial_id", "experiment_tag"
HOSTNAME, NODE_IP, PID = "hostname", "node_ip", "pid"
TIME_THIS_ITER_S, TIME_TOTAL_S = "time_this_iter_s", "time_total_s"
TIMESTEPS_THIS_ITER, TIMESTEPS_TOTAL = "timesteps_this_iter", "timesteps_total"
EPISODES_THIS_ITER, EPISODES_TOTAL = "episodes_this_iter", "episodes_total"
EPISODE_REWARD_MEAN = "episode_reward_mean"
MEAN_ACCURACY, MEAN_LOSS = "mean_accuracy", "mean_loss"
DEFAULT_METRIC, DEFAULT_EXPERIMENT_NAME = "_metric", "default"
CONFIG_PREFIX = "config"
