"""Episodes as a person sees them: what is played against `evaluate`, what is shown through a small terminal."""

import io
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from common import masked_env
from PIL import Image

from jaxrl.envs import raster, registry, wrappers
from jaxrl.envs.corridor import corridor
from jaxrl.evaluate import evaluate
from jaxrl.runs import pictures, record, watch
from jaxrl.runs.cli import main
from jaxrl.runs.plan import Chosen, choose, keys, prepare
from jaxrl.runs.screen import Screen
from jaxrl.types import Agent

QUICK = ["--fps", "0", "--no-cache"]
ENDING = re.compile(r"^episode (\d+) \(seed (\d+)\): return (\S+) in (\d+) steps?, (\w+)$", re.M)
CAPTION = re.compile(r"^episode (\d+) \(seed (\d+)\)  step (\d+)(?:  action (\S+)  reward (\S+)  return (\S+))?$", re.M)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working directory, a registry of one's own, and a plain environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    """A run of two seeds on a small slippery lake, of its own settings."""
    out = tmp_path_factory.mktemp("lake") / "run"
    words = (
        "train q_learning FrozenLake-v1 --steps 2000 --num-envs 4 --seeds 2 --env.desc SFF FHF FFG --no-cache --quiet"
    )
    assert main([*words.split(), "--out", str(out)]) == 0
    return out


def watched(capsys, *args: str, code: int = 0) -> str:
    """What `jaxrl watch` prints."""
    capsys.readouterr()
    assert main(["watch", *args, *QUICK]) == code
    return capsys.readouterr().out


def endings(out: str) -> list[tuple[float, int, str]]:
    """(return, steps, end) of each episode."""
    return [(float(total), int(steps), end) for _, _, total, steps, end in ENDING.findall(out)]


def random_agent(env, params) -> Agent:
    def act(state, carry, obs, key, steps, greedy=False):
        return env.action_space(params).sample(key), carry

    return Agent(lambda key, obs: (), lambda count: (), act, lambda *args: ((), None, {}))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_random_episodes_are_those_of_evaluate(env_id, capsys):
    env, params = registry.make(env_id, max_steps_in_episode=25)
    play = jax.jit(lambda key: evaluate(env, params, random_agent(env, params), (), key, 1))
    words = "--episodes 3 --seed 4 --columns 2 --env.max-steps-in-episode 25"
    out = watched(capsys, env_id, *words.split())
    shown = endings(out)
    assert len(shown) == 3
    assert [seed for _, seed, *_ in ENDING.findall(out)] == ["4", "5", "6"]
    for seed, (total, steps, end) in zip((4, 5, 6), shown, strict=True):
        played = play(keys(seed, 1))
        assert total == pytest.approx(float(played.returns[0]), rel=1e-3)
        assert steps == int(played.lengths[0])
        assert end == ("terminated" if steps < params.max_steps_in_episode else "truncated")


def test_greedy_episodes_are_those_of_eval(lake, capsys):
    plan, state = record.load(lake)
    play = plan.evaluation(1)
    played = [play(state, plan.evaluation_keys(seed)) for seed in range(3, 8)]
    shown = endings(watched(capsys, str(lake), "--seed", "3", "--episodes", "5", "--seed-index", "1"))
    assert [total for total, _, _ in shown] == [float(one.returns[1, 0]) for one in played]
    assert [steps for _, steps, _ in shown] == [int(one.lengths[1, 0]) for one in played]
    assert len({steps for _, steps, _ in shown}) > 2
    assert [one.lengths[0, 0] for one in played] != [one.lengths[1, 0] for one in played]


def test_a_run_of_one_seed_plays_as_that_seed_of_several(lake):
    plan, state = record.load(lake)
    one = prepare(plan.recipe, plan.chosen, plan.config, seed=1)
    policy, key_of = watch.trained(one, jax.tree.map(lambda leaf: leaf[1], state), 0)
    among, key_among = watch.trained(plan, state, 1)
    assert jax.random.key_data(key_of(6)).tolist() == jax.random.key_data(key_among(5)).tolist()
    for leaf, other in zip(jax.tree.leaves(policy.memory), jax.tree.leaves(among.memory), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_pictures_and_captions_follow_the_actions(capsys):
    """Each step by hand: the highlighted cell is where the actions so far lead."""
    words = "--text --seed 2 --max-steps 40 --env.length 4 --env.terminal False --env.max-steps-in-episode 30"
    out = watched(capsys, "Corridor-v0", *words.split()).splitlines()
    cell, total = 0, 0.0
    for step, (line, told) in enumerate(zip(out[:-1:2], out[1:-1:2], strict=True)):
        _, _, number, action, reward, returned = CAPTION.fullmatch(told).groups()
        assert int(number) == step
        if step:
            cell = min(max(cell + (1 if action == "1" else -1), 0), 3)
            total += float(reward)
            assert (float(reward), float(returned)) == (1.0, total)
        assert line == "".join("\x1b[41m.\x1b[0m" if place == cell else "." for place in range(4))
    assert endings(out[-1]) == [(30.0, 30, "truncated")]


def test_random_play_honours_a_mask(capsys):
    registry.register("Masked-v0", masked_env)
    chosen = choose("Masked-v0")
    play = watch.player(chosen, watch.at_random(chosen))
    moments = [moment for seed in range(20) for moment in play(keys(seed, 1), 0)][1:]
    rewards = [moment.reward for moment in moments if moment.action is not None]
    assert len(rewards) == 100
    assert set(rewards) == {0.0, 1.0}
    assert "has no picture; give its PureEnvironment a render_fn or a frame_fn" in refused(capsys, "watch", "Masked-v0")


def test_an_episode_is_cut(capsys):
    assert endings(watched(capsys, "Corridor-v0", "--max-steps", "1")) == [(0.0, 1, "cut")]


def test_plain_output_is_every_picture_in_colour(capsys):
    out = watched(capsys, "Corridor-v0", "--columns", "20", "--max-steps", "3")
    assert not re.search(r"\x1b\[[\d;?]*[A-Za-ln-z]", out)  # colours alone
    chosen = choose("Corridor-v0")
    moments = list(watch.player(chosen, watch.at_random(chosen))(keys(0, 1), 3))
    frames = [raster.half_blocks(chosen.env.frame(moment.state), 20) for moment in moments]
    lines = [line for frame, moment in zip(frames, moments, strict=True) for line in (frame, caption(moment))]
    assert out == "\n".join([*lines, "episode 1 (seed 0): return 0 in 3 steps, cut", ""])


def caption(moment: watch.Moment) -> str:
    return f"episode 1 (seed 0)  {watch.caption(moment)}"


def test_without_colour_there_is_text(monkeypatch, capsys):
    coloured = re.compile(r"\x1b\[(?!0m|4m|7m)")
    monkeypatch.setenv("NO_COLOR", "1")
    out = watched(capsys, "Corridor-v0", "--max-steps", "3")
    assert out.startswith("\x1b[7m.\x1b[0m........G\nepisode 1 (seed 0)  step 0\n")
    assert not coloured.search(out)
    out = watched(capsys, "MountainCar-v0", "--max-steps", "1", "--columns", "30")
    assert "\x1b" not in out
    assert "▀" not in out
    chosen = choose("MountainCar-v0")
    moment = next(watch.player(chosen, watch.at_random(chosen))(keys(0, 1), 1))
    assert out.startswith(raster.shades(chosen.env.frame(moment.state), 30) + "\nepisode")
    monkeypatch.setenv("NO_COLOR", "")
    assert coloured.search(watched(capsys, "Corridor-v0", "--max-steps", "3"))
    monkeypatch.setenv("TERM", "dumb")
    assert not coloured.search(watched(capsys, "Corridor-v0", "--max-steps", "3"))


def test_where_blocks_cannot_be_written_there_are_characters(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    assert main(["watch", "MountainCar-v0", "--max-steps", "1", "--columns", "30", *QUICK]) == 0
    sys.stdout.seek(0)
    assert re.match(r"([ .:=+*#%@-]{30}\n){10}episode", sys.stdout.read())


def test_text_is_the_environments_own_or_its_picture_in_characters(capsys):
    out = watched(capsys, "FrozenLake-v1", "--text", "--max-steps", "1", "--env.desc", "SFF", "FFG")
    assert out.startswith("\x1b[41mS\x1b[0mFF\nFFG\nepisode")
    out = watched(capsys, "MountainCar-v0", "--text", "--columns", "20", "--max-steps", "1")
    assert "\x1b" not in out
    assert {len(line) for line in out.splitlines()[:6]} == {20}


def test_wrapped_environments_are_watched(capsys):
    registry.register("Stacked-v0", lambda: wrappers.frame_stack(registry.make("CartPole-v1")[0], 2))
    registry.register("Sticky-v0", lambda: wrappers.sticky_action(registry.make("Corridor-v0")[0], 0.5))
    assert "▀" in watched(capsys, "Stacked-v0", "--columns", "10")
    assert watched(capsys, "Sticky-v0", "--text", "--max-steps", "2").startswith("\x1b[41m.\x1b[0m........G\n")


def terminal(out: str, height: int, width: int) -> list[str]:
    """What a terminal of this size shows after `out`, without colours; lines that scrolled away come first."""
    lines, top, row, column, visible, wraps = [""] * height, 0, 0, 0, True, True
    for code, command, char in re.findall(r"\x1b\[([\d;?]*)([A-Za-z])|([^\x1b])", out):
        if command == "A":
            row = max(row - int(code), top)
        elif (command, code) == ("K", "2"):
            lines[row] = ""
        elif command == "J":
            assert (code, column) == ("", 0)
            lines[row:] = [""] * len(lines[row:])
        elif command in ("h", "l") and code == "?25":
            visible = command == "h"
        elif command in ("h", "l") and code == "?7":
            wraps = command == "h"
        elif char == "\r":
            column = 0
        elif char == "\n":
            row, column = row + 1, 0
            if row == top + height:
                lines.append("")
                top += 1
        elif char:
            assert not wraps or column < width, "the line would wrap"
            column = min(column, width - 1)
            lines[row] = lines[row].ljust(column)[:column] + char + lines[row][column + 1 :]
            column += 1
        else:
            assert command == "m", (code, command)
    assert visible
    assert wraps
    return [line.rstrip() for line in lines[: row + 1]]


@pytest.fixture
def live(monkeypatch, capsys):
    """Standard output as a terminal of 44 columns and 12 lines."""
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "44")
    monkeypatch.setenv("LINES", "12")


def test_a_terminal_shows_one_picture_at_a_time(live, capsys):
    out = watched(capsys, "FrozenLake-v1", "--episodes", "3", "--seed", "1")
    shown = terminal(out, 12, 44)
    assert ["(" in line and ENDING.fullmatch(line) is not None for line in shown[:2]] == [True, True]
    assert shown[2:12] == ["▀" * 20] * 10
    assert CAPTION.match(shown[12] + "\n") or shown[12].startswith("episode 3 (seed 3)  step")
    assert ENDING.fullmatch(shown[13])
    assert shown[14:] == [""]
    assert len(CAPTION.findall(out.replace("\x1b[2K", "").replace("\x1b[0m\n", "\n"))) > 3


def test_a_terminal_too_small_is_not_overrun(live, capsys):
    out = watched(capsys, "FrozenLake-v1", "--columns", "44", "--max-steps", "4")
    shown = terminal(out, 12, 44)
    assert shown[:10] == ["▀" * 44] * 10
    assert len(shown) == 13
    out = watched(capsys, "FrozenLake8x8-v1", "--text", "--max-steps", "4", "--env.desc", *["S" + "F" * 58 + "G"] * 20)
    assert terminal(out, 12, 44)[:10] == (["S" + "F" * 42 + "G"] * 10)


def test_text_on_a_terminal_is_drawn_in_place(live, capsys):
    words = "--text --max-steps 25 --env.length 5 --env.terminal False"
    shown = terminal(watched(capsys, "Corridor-v0", *words.split()), 12, 80)
    assert shown[0] == "....."
    assert shown[1].startswith("episode 1 (seed 0)  step 25  action")
    assert shown[2:] == ["episode 1 (seed 0): return 25 in 25 steps, cut", ""]


def test_a_shorter_picture_leaves_nothing_of_the_last(live, capsys):
    shown = Screen()
    shown.draw("\x1b[41mwide and\nhigh\nand long", "a caption")
    shown.draw("x\ny" + "z" * 30, "short")
    first = capsys.readouterr().out
    assert terminal(first, 12, 44) == ["x", "y" + "z" * 30, "short", ""]
    shown.say("over", keep=False)
    shown.draw("x", "y")
    shown.say("below", keep=True)
    assert terminal(first + capsys.readouterr().out, 12, 44) == ["over", "x", "y", "below", ""]


class Clock:
    """Time that passes only while one sleeps."""

    def __init__(self, monkeypatch):
        self.now, self.sleeps = 100.0, []
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(watch.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def test_pictures_come_at_their_rate(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    assert main(["watch", "Corridor-v0", "--max-steps", "8", "--no-cache", "--fps", "4"]) == 0
    assert clock.sleeps == [0.25] * 9
    clock.sleeps.clear()
    assert main(["watch", "Corridor-v0", "--max-steps", "8", "--no-cache", "--fps", "0"]) == 0
    assert clock.sleeps == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_gives_the_cursor_back(number, code, live, monkeypatch, capsys, request):
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    slept = []

    def sleep(seconds):
        if seconds < 1:  # not between two pictures: something else waits
            return
        slept.append(seconds)
        if len(slept) == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["watch", "Corridor-v0", "--no-cache", "--fps", "0.1"]) == code  # slow enough to sleep on any machine
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    out, err = capsys.readouterr()
    shown = terminal(out, 12, 44)
    assert "step 2" in shown[-2]
    assert shown[-1] == ""
    assert "Traceback" not in err


def refused(capsys, *args: str) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    before = sorted(Path.cwd().rglob("*"))
    assert main([*args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxrl: ")
    assert err.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return err


BAD = {
    "nothing": ("", "ENV or RUN comes first"),
    "unknown environment": ("CartPole-v9", "did you mean 'CartPole-v1'"),
    "no directory": ("runs/nothing", "does not exist"),
    "no run": ("./", "is no run"),
    "misspelt flag": ("CartPole-v1 --episode 2", "did you mean --episodes"),
    "misspelt setting": ("FrozenLake-v1 --env.slippery True", "did you mean --env.is-slippery"),
    "setting out of range": ("CartPole-v1 --env.gravity -1", "gravity is -1"),
    "no episodes": ("CartPole-v1 --episodes 0", "episodes is 0"),
    "negative seed": ("CartPole-v1 --seed -1", "0..4294967295"),
    "last seed too large": ("CartPole-v1 --seed 4294967295 --episodes 2", "use a seed up to 4294967294"),
    "negative rate": ("CartPole-v1 --fps -1", "fps is -1"),
    "rate without a number": ("CartPole-v1 --fps nan", "fps is nan"),
    "negative width": ("CartPole-v1 --columns -1", "columns is -1"),
    "negative steps": ("CartPole-v1 --max-steps -1", "max_steps is -1"),
    "no picture, ours has": ("gymnax:CartPole-v1", "gymnax:CartPole-v1 draws no picture; watch CartPole-v1"),
    "no picture, nor ours": ("gymnax:FourRooms-misc", "jaxrl list shows"),
    "no picture for a gif": ("gymnax:CartPole-v1 --gif a.gif", "draws no picture"),
    "gif that is none": ("CartPole-v1 --gif a.png", "must end in .gif"),
    "gif nowhere": ("CartPole-v1 --gif no/a.gif", "there is no directory no"),
    "seed index of an environment": ("CartPole-v1 --seed-index 1", "unknown flag --seed-index"),
}


@pytest.mark.parametrize(("args", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(args, said, capsys):
    assert said in refused(capsys, "watch", *args.split())


def test_bad_input_about_a_run_is_one_line(lake, capsys):
    assert "seed_index is 2; the run has 2 seeds: use 0..1" in refused(capsys, "watch", str(lake), "--seed-index", "2")
    assert "seed_index is -1" in refused(capsys, "watch", str(lake), "--seed-index", "-1")
    assert "use a seed up to 4294967294" in refused(capsys, "watch", str(lake), "--seed", "4294967295")
    assert "unknown flag --env.desc" in refused(capsys, "watch", str(lake), "--env.desc", "SG")
    shutil.copytree(lake, "run")
    Path("run/agent.safetensors").write_bytes(b"")
    assert "0 bytes" in refused(capsys, "watch", "run")


def test_help(lake, capsys):
    assert main(["watch", "--help"]) == 0
    assert "jaxrl watch ENV|RUN" in capsys.readouterr().out
    assert main(["watch", "FrozenLake-v1", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--episodes", "--fps", "--gif", "--env.is-slippery"))
    assert main(["watch", str(lake), "--help"]) == 0
    said = capsys.readouterr().out
    assert "--seed-index" in said
    assert "--env." not in said


def test_gif_holds_every_picture(capsys):
    args = ["FrozenLake-v1", "--gif", "lake.gif", "--episodes", "2", "--env.desc", "SFF", "FHF", "FFG"]
    out = watched(capsys, *args)
    assert "▀" not in out
    chosen = choose("FrozenLake-v1", {"desc": ("SFF", "FHF", "FFG")})
    play = watch.player(chosen, watch.at_random(chosen))
    frames = [chosen.env.frame(moment.state, chosen.params) for seed in (0, 1) for moment in play(keys(seed, 1), 0)]
    changes = [frame for i, frame in enumerate(frames) if not i or (frame != frames[i - 1]).any()]
    assert len(endings(out)) == 2
    assert f"wrote lake.gif: {len(frames)} pictures" in out
    with Image.open("lake.gif") as film:
        shown, durations = [], []
        for number in range(film.n_frames):  # equal pictures in turn are one that lasts longer
            film.seek(number)
            shown.append(np.asarray(film.convert("RGB")))
            durations.append(film.info["duration"])
    assert len(shown) == len(changes)
    assert sum(durations) == 20 * len(frames)
    np.testing.assert_array_equal(shown, changes)


def test_gif_replaces_nothing_unasked(capsys):
    args = ["Corridor-v0", "--gif", "a.gif", "--max-steps", "2"]
    Path("a.gif").write_text("mine")
    assert "a.gif is there already" in refused(capsys, "watch", *args)
    assert Path("a.gif").read_text() == "mine"
    watched(capsys, *args, "--force")
    assert Path("a.gif").read_bytes().startswith(b"GIF89a")
    assert [path.name for path in Path.cwd().iterdir()] == ["a.gif"]
    Path("b.gif").mkdir()
    assert "a directory" in refused(capsys, "watch", "Corridor-v0", "--gif", "b.gif", "--force")


def test_gif_of_pictures_of_several_sizes():
    frames = [np.full((4, 6, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)]
    pictures.animation(Path("a.gif"), frames, 4)
    with Image.open("a.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (2, (6, 4), 250)
        film.seek(1)
        picture = np.asarray(film.convert("L"))
    assert (picture[1:3, 2:4] == 0).all()
    assert picture.sum() == 255 * (24 - 4)


def names_on(path: Path) -> list[str]:
    """The title of each cell of a sheet, read letter by letter."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    letters = {raster.text_frame(chr(code), 1)[:, 1:6].tobytes(): chr(code) for code in range(32, 127)}
    found = []
    for top in range(pictures.GAP, pixels.shape[0] - pictures.GAP, pictures.TITLE + pictures.HEIGHT + pictures.GAP):
        for left in range(pictures.GAP, pixels.shape[1] - pictures.GAP, pictures.WIDTH + pictures.GAP):
            dots = (left + 6 * i + 1 for i in range(pictures.WIDTH // 6))
            text = "".join(letters[pixels[top : top + 9, dot : dot + 5].tobytes()] for dot in dots)
            found.append(text.rstrip())
    return [name for name in found if name]


def test_a_sheet_shows_every_environment(monkeypatch, capsys):
    only = ("CartPole-v1", "Corridor-v0", "FrozenLake-v1", "MountainCarContinuous-v0")
    monkeypatch.setattr(registry, "_factories", {name: registry._factories[name] for name in only})
    registry.register("Masked-v0", masked_env)  # draws nothing
    for number in range(4):
        registry.register(f"Other-v{number}", corridor)
    assert main(["list", "--pictures", "all.png", "--no-cache"]) == 0
    assert capsys.readouterr().out.startswith("wrote all.png: 9 pictures, ")
    assert names_on(Path("all.png")) == registry.list_ids()
    pixels = np.asarray(Image.open("all.png"))
    assert pixels.shape == (2 * (13 + 110 + 6) + 6, 7 * (146 + 6) + 6, 3)
    assert Path("all.png").stat().st_size < 30_000
    cells = [pixels[19 + 129 * row : 129 + 129 * row, 6 + 152 * i : 152 + 152 * i] for row in (0, 1) for i in range(7)]
    assert all((cell == pictures.PAPER).all(-1).mean() > 0.1 for cell in cells[:9])
    assert all((cell == 255).all() for cell in cells[9:])
    lake = cells[2].reshape(-1, 3).tolist()
    assert {raster.BLUE, raster.ICE, raster.GREEN, raster.YELLOW, raster.RED} <= set(map(tuple, lake))
    first = Path("all.png").read_bytes()
    assert main(["list", "--pictures", "all.png", "--force", "--no-cache"]) == 0
    assert Path("all.png").read_bytes() == first
    assert "all.png is there already" in refused(capsys, "list", "--pictures", "all.png")
    assert "must end in .png" in refused(capsys, "list", "--pictures", "all.gif")
    assert Path("all.png").read_bytes() == first


def test_list_says_what_each_environment_is(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = dict(line.strip().split(maxsplit=1) for line in lines if line.startswith("  "))
    assert set(registry.list_ids()) < set(said)
    assert said["CartPole-v1"] == "balance a pole on a cart"
    assert said["FrozenLake-v1"] == "cross a slippery lake without falling into a hole"
    assert said["FrozenLake8x8-v1"] == "the larger map and 200 steps"
    assert all(len(line) <= 120 for line in lines)
    assert len(set(said.values())) > len(said) - 3


def test_an_environment_of_ones_own_is_described(capsys):
    def factory():
        """A corridor by another name. With more to say."""
        return corridor()

    registry._factories = {"Own-v0": factory}
    assert main(["list"]) == 0
    assert re.search(r"^  Own-v0 +A corridor by another name$", capsys.readouterr().out, re.M)


def test_a_moment_is_told_in_words():
    moment = watch.Moment(None, 3, np.array([0.12345, -1.0]), -0.5, 123456.0, "")
    assert watch.caption(moment) == "step 3  action [ 0.123 -1.   ]  reward -0.5  return 1.235e+05"
    assert watch.ending("x", moment._replace(steps=1, end="cut")) == "x: return 1.235e+05 in 1 step, cut"


def test_an_object_without_frame_is_told_apart():
    with pytest.raises(ValueError, match="Bare draws no picture"):
        watch.picture(Chosen(type("Env", (), {"name": "Bare"})(), None, None, {}), None)
