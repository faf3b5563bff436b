"""The environments' page: its snippets run, its table is true, every line for those from Gyx or Gymnasium holds."""

import re
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxrl
from jaxrl import spaces
from jaxrl.envs import raster, registry, wrappers
from jaxrl.types import Masked

FOLDER = Path(registry.__file__).parent
PAGE = (FOLDER / "README.md").read_text()
MAPPING = PAGE.partition("## Coming from")[2]
LINES = [line.replace(r"\|", "|") for line in re.findall(r"^\|.*\| `(.*)` \|$", MAPPING, flags=re.M)]

# what holds after a line, by what it assigns or calls; the names are the page's
HOLDS = {
    "env, params": lambda at: at["env"].name == "FrozenLake-v1" == gymnasium.spec("FrozenLake-v1").id,
    "obs, state": lambda at: at["obs"] == 0,
    "obs, state, reward, terminated, truncated, info": lambda at: (
        int(at["obs"]) in (0, 1, 4) and at["reward"] == 0 and not (at["terminated"] or at["truncated"])
    ),
    "obs": lambda at: at["obs"] == at["state"].position,
    "position": lambda at: at["position"] == at["obs"],
    "action": lambda at: 0 <= at["action"] < 4,
    "inside": lambda at: not at["inside"] and at["env"].action_space().contains(3),
    "key": lambda at: jnp.issubdtype(at["key"].dtype, jax.dtypes.prng_key),
    "error, out": lambda at: "7" in at["error"].get() and "action" in at["error"].get(),
    "text": lambda at: re.sub("\x1b[^m]*m", "", at["text"]) == "SFFF\nFHFH\nFFFH\nHFFG",
    "picture": lambda at: at["picture"].dtype == np.uint8 and at["picture"].shape[2] == 3,
    "blocks": lambda at: at["blocks"].count("\u2580") % 40 == 0 and "\x1b[38;2;" in at["blocks"],
    "done": lambda at: not at["done"],
    "last": lambda at: at["last"] == at["obs"],
    "lanes": lambda at: at["lanes"].trajectory.reward.shape == (10, 64),
    "jaxrl.register": lambda at: jaxrl.make("Mine-v0")[0].name == "Corridor-v0",
    "limit": lambda at: at["limit"] == gymnasium.spec("FrozenLake-v1").max_episode_steps,
    "shorter": lambda at: at["shorter"].name,
    "counted": lambda at: "returned_episode_returns" in at["counted"].step(jaxrl.key(0), start(at["counted"]), 0)[-1],
    "mdp": lambda at: np.array_equal(at["mdp"].P[0, 0].nonzero()[0], [0, 4]),
    "jaxrl.check_env": lambda at: True,
    "buffer": lambda at: callable(at["buffer"].sample),
}


def start(env):
    return env.reset(jaxrl.key(0))[1]


def test_every_line_of_the_mapping_holds(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    at = {"jax": jax, "jaxrl": jaxrl, "wrappers": wrappers, "raster": raster, "checkify": checkify}
    at["make_mine"] = lambda: jaxrl.make("Corridor-v0")[0]
    seen = []
    for line in LINES:
        exec(line, at)
        name = re.match(r"[\w, ]+?(?= = )|[\w.]+(?=\()", line).group()
        assert HOLDS[name](at), line
        seen.append(name)
    assert set(seen) == set(HOLDS)
    assert len(LINES) == MAPPING.count("\n| ") - 1  # no line escapes the pattern


def test_a_seed_and_a_key_repeat_themselves():
    """Where Gym seeds an environment, here the key is an argument."""
    env, params = jaxrl.make("CartPole-v1")
    np.testing.assert_array_equal(env.reset(jaxrl.key(5), params)[0], env.reset(jaxrl.key(5), params)[0])
    threefry = jax.random.key(5, impl="threefry2x32")
    assert (env.reset(threefry, params)[0] != env.reset(jaxrl.key(5), params)[0]).any()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, flags=re.S))
def test_snippets(code, capsys):
    exec(code, {})


def row(env_id: str) -> str:
    """An environment's line in the table: everything in it is read from the environment."""
    env, params = jaxrl.make(env_id)
    space, actions = env.observation_space(params), env.action_space(params)
    obs = env.reset(jaxrl.key(0), params)[0]
    limit = params.max_steps_in_episode
    words = [
        f"`{env_id}`",
        words_of(space) + (" and a mask" if isinstance(obs, Masked) else ""),
        words_of(actions),
        "none" if limit >= jaxrl.types.NO_LIMIT else f"{limit:,}",
        "yes" if env.tabular_fn else "",
    ]
    return "| " + " | ".join(words) + " |"


def words_of(space) -> str:
    if isinstance(space, spaces.Discrete):
        return f"{space.n}"
    if isinstance(space, spaces.Tuple):
        return " x ".join(words_of(member) for member in space)
    return f"{np.dtype(space.dtype).name} {list(space.shape)}"


def test_the_table_is_true():
    """Print `row` of every id to make it again."""
    table = PAGE.partition("<!-- table: environments -->")[2].partition("##")[0]
    rows = [line for line in table.strip().splitlines()[2:]]
    assert rows == [row(env_id) for env_id in jaxrl.list_ids()]


def test_the_picture_is_there():
    assert (FOLDER / "environments.png").stat().st_size < 200_000
