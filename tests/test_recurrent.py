"""Networks with memory and their agents, against plain Python that keeps the memory in a list."""

import itertools
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl import explore, nets, recipes, returns
from jaxrl.agents import recurrent
from jaxrl.envs import wrappers
from jaxrl.train import LoopConfig, decide, make_run, record
from jaxrl.types import Masked, Sample, Transition

GAMMA, A, T = 0.7, 3, 4
PATTERNS = list(itertools.product(("", "terminated", "truncated"), repeat=T))


class Sums:
    """A linear network; its memory, a nested one, is a sum of what it saw, leaking as learned, and a count of looks."""

    def start(self):
        return jnp.zeros(()), {"looks": jnp.zeros(())}

    def init(self, key, carry, obs, /):
        return jnp.zeros((4, A))

    def apply(self, params, carry, obs, /):
        total, looks = params[3, 0] * carry[0] + obs, carry[1]["looks"] + 1
        return jnp.stack([total, looks, obs]) @ params[:3], (total, {"looks": looks})


def look(params, memory, obs):
    """`Sums.apply` in plain Python; the memory is a list."""
    total, looks = params[3][0] * memory[0] + obs, memory[1] + 1
    return [total * params[0][a] + looks * params[1][a] + obs * params[2][a] for a in range(A)], [total, looks]


def walk(params, memory, item, rows):
    """(q at obs, q at next_obs by the memory after the step) of some rows of a window, and the memory after them."""
    here, ahead = [], []
    for t in rows:
        q, memory = look(params, memory, float(item.obs.observation[t]))
        here.append(q)
        ahead.append(look(params, memory, float(item.next_obs.observation[t]))[0])
        if item.terminated[t] or item.truncated[t]:
            memory = [0.0, 0.0]
    return here, ahead, memory


def h(x, epsilon=1e-3):
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + epsilon * x


def h_inverse(x, epsilon=1e-3):
    return np.sign(x) * (((np.sqrt(1 + 4 * epsilon * (abs(x) + 1 + epsilon)) - 1) / (2 * epsilon)) ** 2 - 1)


def best(q, mask):
    return max((action for action in range(A) if mask[action]), key=lambda action: q[action])


def items(seed=0):
    """A window [T] for every pattern of ends, with a memory at its start; where it terminates nothing is allowed."""
    rng = np.random.default_rng(seed)
    for ends in PATTERNS:
        terminated, truncated = (np.array([end == name for end in ends]) for name in ("terminated", "truncated"))
        obs, next_obs, reward = rng.normal(size=(3, T)).astype(np.float32) * np.float32(1.5)
        action = rng.integers(A, size=T).astype(np.int32)
        allowed = (rng.random((T, A)) < 0.6) | (np.arange(A) == rng.integers(A, size=(T, 1)))
        total, looks = np.float32(rng.normal()), np.float32(rng.integers(5))
        obs, next_obs = Masked(obs, np.ones((T, A), bool)), Masked(next_obs, allowed & ~terminated[:, None])
        yield Transition(obs, action, reward, terminated, truncated, next_obs, (total, {"looks": looks}))


def batch(windows):
    window = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *windows)
    return Sample(window, jnp.arange(len(windows)), jnp.ones(len(windows)))


def memory_of(item):
    return [float(item.carry[0]), float(item.carry[1]["looks"])]


ONLINE, TARGET = np.random.default_rng(5).normal(size=(2, 4, A)).astype(np.float32)


def r2d2_oracle(item, burn_in, n, double, rescale):
    """(learned rows, their memory, goals) of a window: section 2.3's targets, step by step."""
    there, back = (h, h_inverse) if rescale else (lambda x: x, lambda x: x)
    *_, memory = walk(ONLINE, memory_of(item), item, range(burn_in))
    *_, target_memory = walk(TARGET, memory_of(item), item, range(burn_in))
    rows = range(burn_in, T)
    _, online_ahead, _ = walk(ONLINE, memory, item, rows)
    _, target_ahead, _ = walk(TARGET, target_memory, item, rows)
    goals = []
    for t in rows:
        total, discount = 0.0, 1.0
        for k in range(t, min(t + n, T)):
            total += discount * float(item.reward[k])
            discount *= 0.0 if item.terminated[k] else GAMMA
            if item.terminated[k] or item.truncated[k]:
                break
        if discount:
            chooser = online_ahead if double else target_ahead
            action = best(chooser[k - burn_in], item.next_obs.action_mask[k])
            total += discount * back(target_ahead[k - burn_in][action])
        goals.append(there(total))
    return rows, memory, goals


def errors(params, item, rows, memory, goals):
    here, _, _ = walk(params, memory, item, rows)
    return [goal - q[item.action[t]] for goal, q, t in zip(goals, here, rows, strict=True)]


def cost(item, rows, memory, goals, params):
    return np.mean(np.square(errors(params, item, rows, memory, goals))) / 2


def slope(function, params, step=1e-4):
    """The gradient of a plain function of params by central differences."""
    params = np.asarray(params, np.float64)
    gradient = np.zeros(params.shape)
    for place in np.ndindex(*params.shape):
        change = np.zeros(params.shape)
        change[place] = step
        gradient[place] = (function(params + change) - function(params - change)) / (2 * step)
    return gradient


R2D2 = [
    {"burn_in": 0, "n_step": 1, "double": False, "rescale": None},
    {"burn_in": 1, "n_step": 2, "double": True, "rescale": 1e-3},
    {"burn_in": 2, "n_step": 5, "double": True, "rescale": None},
]


@pytest.mark.parametrize("options", R2D2)
def test_r2d2_is_the_papers_over_every_pattern_of_ends(options):
    windows = list(items())
    agent = jaxrl.r2d2(Sums(), optax.sgd(1.0), gamma=GAMMA, eta=0.9, **options)
    state = agent.init(jaxrl.key(0), jnp.zeros(1))._replace(params=jnp.asarray(ONLINE), target=jnp.asarray(TARGET))
    after, priority, metrics = jax.jit(agent.update)(state, batch(windows), jaxrl.key(1), jnp.float32(0))
    losses, change = [], np.zeros((4, A))
    for i, item in enumerate(windows):
        known = r2d2_oracle(item, options["burn_in"], options["n_step"], options["double"], options["rescale"])
        found = np.abs(errors(ONLINE, item, *known))
        assert float(priority[i]) == pytest.approx(0.9 * found.max() + 0.1 * found.mean(), rel=1e-4), PATTERNS[i]
        losses.append(np.mean(found**2) / 2)
        # what came before the learned rows is given: no slope goes through the burn-in, nor through the goals
        change -= slope(partial(cost, item, *known), ONLINE) / len(windows)
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-4)
    np.testing.assert_allclose(after.params - state.params, change, rtol=1e-3, atol=1e-4)


def test_r2d2s_errors_are_rlaxs():
    """Where nothing is cut: the same errors as rlax.transformed_n_step_q_learning on the q of the same unroll."""
    rlax = pytest.importorskip("rlax")
    for i, item in enumerate(items(3)):
        ends = item.terminated | item.truncated
        if ends[:-1].any() or item.truncated.any():
            continue
        item = item._replace(obs=item.obs.observation)
        item = item._replace(next_obs=np.append(item.obs[1:], item.next_obs.observation[-1]))
        agent = jaxrl.r2d2(Sums(), optax.sgd(1.0), gamma=GAMMA, n_step=2, burn_in=0, eta=i % 2)
        state = agent.init(jaxrl.key(0), jnp.zeros(1))._replace(params=jnp.asarray(ONLINE), target=jnp.asarray(TARGET))
        _, priority, _ = agent.update(state, batch([item]), jaxrl.key(1), 0.0)
        seen, target = (recurrent.unroll(Sums(), jnp.asarray(p), item.carry, item) for p in (ONLINE, TARGET))
        ahead = [recurrent.ahead(Sums(), jnp.asarray(p), u.after, item) for p, u in ((ONLINE, seen), (TARGET, target))]
        found = rlax.transformed_n_step_q_learning(
            seen.q,
            jnp.asarray(item.action),
            ahead[1],
            jnp.argmax(ahead[0], axis=-1),
            jnp.asarray(item.reward),
            GAMMA * (1.0 - item.terminated.astype(np.float32)),
            2,
            tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR,
        )
        wanted = jnp.max(jnp.abs(found)) if i % 2 else jnp.mean(jnp.abs(found))
        np.testing.assert_allclose(priority[0], wanted, rtol=1e-3)


def test_the_priority_of_a_sequence_by_hand():
    """q is 0 and every step terminal: the errors are the rewards 1, -2, 6; 0.9 x 6 + 0.1 x 3."""
    yes = np.ones(3, bool)
    item = Transition(
        np.zeros(3), np.zeros(3, np.int32), np.array([1.0, -2.0, 6.0], np.float32), yes, ~yes, np.zeros(3)
    )
    agent = jaxrl.r2d2(Sums(), burn_in=0, rescale=None, eta=0.9)
    state = agent.init(jaxrl.key(0), jnp.zeros(1))
    carry = jax.tree.map(np.float32, Sums().start())
    _, priority, _ = agent.update(state, batch([item._replace(carry=carry)]), jaxrl.key(1), 0.0)
    assert float(priority[0]) == pytest.approx(5.7)


def lambda_goals(item, lambda_):
    """Lambda-returns of a window by the parameters ONLINE, from the back."""
    _, ahead, _ = walk(ONLINE, memory_of(item), item, range(T))
    goals, after = [0.0] * T, None
    for t in reversed(range(T)):
        reward, mask = float(item.reward[t]), item.next_obs.action_mask[t]
        value = 0.0 if item.terminated[t] else ahead[t][best(ahead[t], mask)]
        if item.terminated[t] or item.truncated[t] or after is None:
            after = reward + GAMMA * value
        else:
            after = reward + GAMMA * ((1 - lambda_) * value + lambda_ * after)
        goals[t] = after
    return goals


@pytest.mark.parametrize("lambda_", [0.0, 0.6])
def test_a_phase_of_recurrent_pqn_over_every_pattern_of_ends(lambda_):
    """Two epochs of one minibatch: goals by the first parameters, the memory that of the window's start."""
    windows, rate = list(items(7)), 0.05
    agent = jaxrl.recurrent_pqn(Sums(), optax.sgd(rate), gamma=GAMMA, lambda_=lambda_, epochs=2, minibatches=1)
    state = agent.init(jaxrl.key(0), jnp.zeros(1))._replace(params=jnp.asarray(ONLINE))
    after, priority, metrics = jax.jit(agent.update)(state, batch(windows), jaxrl.key(1), jnp.float32(0))
    goals = [lambda_goals(item, lambda_) for item in windows]

    def costs_of(params):
        parts = zip(windows, goals, strict=True)
        return np.mean([cost(item, range(T), memory_of(item), goal, params) for item, goal in parts])

    params, costs = ONLINE.astype(np.float64), []
    for _ in range(2):
        costs.append(costs_of(params))
        params = params - rate * slope(costs_of, params)
    np.testing.assert_allclose(after.params, params, rtol=1e-3, atol=1e-4)
    assert float(metrics["loss"]) == pytest.approx(np.mean(costs), rel=1e-4)
    assert priority.shape == (len(windows),) and int(after.updates) == 2


def test_every_epoch_shows_each_lane_once_whole_and_in_an_order_of_its_own():
    """Lane i has terminal rewards 2^i and q = 0: a gradient step's sum of goals tells which lanes it was shown."""
    lanes, epochs, minibatches = 8, 3, 4

    def remember(gradient, memory, params=None):
        seen, place = memory
        return jax.tree.map(jnp.zeros_like, gradient), (seen.at[place].set(gradient), place + 1)

    empty = (jnp.zeros((epochs * minibatches, 4, A)), 0)
    agent = jaxrl.recurrent_pqn(
        Sums(), optax.GradientTransformation(lambda params: empty, remember), epochs=epochs, minibatches=minibatches
    )
    yes = jnp.ones((lanes, T), bool)
    reward = jnp.broadcast_to(2.0 ** jnp.arange(lanes)[:, None], (lanes, T))
    start = jax.tree.map(lambda leaf: jnp.zeros(lanes), Sums().start())
    window = Transition(
        jnp.zeros((lanes, T)), jnp.zeros((lanes, T), jnp.int32), reward, yes, ~yes, jnp.zeros((lanes, T))
    )
    state = agent.init(jaxrl.key(0), jnp.zeros(1))
    sample = Sample(window._replace(carry=start), jnp.arange(lanes), jnp.ones(lanes))
    state, *_ = jax.jit(agent.update)(state, sample, jaxrl.key(3), 0.0)
    shown = -state.optimizer[0][:, 1, 0] * (lanes // minibatches)  # every step is the first look of its episode
    shown = [[i for i in range(lanes) if int(total) >> i & 1] for total in np.rint(shown)]
    orders = [sum(shown[i : i + minibatches], []) for i in range(0, len(shown), minibatches)]
    assert [sorted(order) for order in orders] == [list(range(lanes))] * epochs
    assert orders[0] != orders[1]


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_n_step_returns_over_every_pattern_of_ends(n):
    rng = np.random.default_rng(n)
    for ends in PATTERNS:
        reward, value = rng.normal(size=(2, T))
        discount = np.where(np.array(ends) == "terminated", 0.0, GAMMA)
        trace = (np.array(ends) != "truncated").astype(float)
        wanted = []
        for t in range(T):
            total, power = 0.0, 1.0
            for k in range(t, min(t + n, T)):
                total, power = total + power * reward[k], power * discount[k]
                if ends[k]:
                    break
            wanted.append(total + power * value[k])
        found = returns.n_step_returns(*(jnp.asarray(x) for x in (reward, discount, value, trace)), n)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_n_step_returns_are_rlaxs_where_nothing_is_cut():
    rlax = pytest.importorskip("rlax")
    reward, value = jax.random.normal(jax.random.key(0), (2, 6))
    discount = jnp.array([0.9, 0.9, 0.0, 0.9, 0.9, 0.9])
    for n in (1, 3, 6):
        found = returns.n_step_returns(reward, discount, value, 1.0, n)
        np.testing.assert_allclose(found, rlax.n_step_bootstrapped_returns(reward, discount, value, n), rtol=1e-5)


def test_rescaling_and_its_inverse():
    rlax = pytest.importorskip("rlax")
    assert float(returns.rescale(3.0)) == pytest.approx(1.003)  # sqrt(4) - 1 + 3 / 1000
    assert float(returns.rescale(-99.0, 0.01)) == pytest.approx(-9.99)
    x = np.concatenate([-np.logspace(-3, 4, 30), [0.0], np.logspace(-3, 4, 30)]).astype(np.float32)
    np.testing.assert_allclose(returns.rescale(x), h(x.astype(np.float64)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(returns.unscale(x), h_inverse(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(returns.unscale(returns.rescale(x)), x, rtol=1e-5, atol=1e-6)
    pair = rlax.SIGNED_HYPERBOLIC_PAIR
    np.testing.assert_allclose(returns.rescale(x), pair.apply(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(returns.unscale(x), pair.apply_inv(x), rtol=1e-3, atol=1e-3)


def cell_and_peer(kind, width, inputs):
    """A cell of ours as a function (carry, x) -> carry, and flax's with the same weights."""
    import flax.linen as nn

    cell = {"gru": nets.GRU, "lstm": nets.LSTM}[kind](width, span=20)
    net = nets.RecurrentQNetwork(2, nets.MLP(()), cell)
    ours = net.init(jax.random.key(0), net.start(), jnp.zeros(inputs))
    ours = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), ours)
    weights = ours["params"]["cell"]
    names = "rzn" if kind == "gru" else "ifgo"
    parts = len(names)
    from_x, from_h, bias = (
        np.split(np.asarray(w), parts, -1)
        for w in (weights["inputs"]["kernel"], weights["kernel"], weights["inputs"]["bias"])
    )
    theirs = {}
    for i, name in enumerate(names):
        theirs[f"i{name}"], theirs[f"h{name}"] = {"kernel": from_x[i]}, {"kernel": from_h[i]}
        theirs[f"{'i' if kind == 'gru' else 'h'}{name}"]["bias"] = bias[i]
    if kind == "gru":
        theirs["hn"]["bias"] = weights["bias"]
    peer = nn.GRUCell(width) if kind == "gru" else nn.OptimizedLSTMCell(width)
    return (lambda carry, x: net.apply(ours, carry, x)[1]), (
        lambda carry, x: peer.apply({"params": theirs}, carry, x)[0]
    )


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_cells_are_flaxs(kind):
    ours, theirs = cell_and_peer(kind, 5, 3)
    carry = jax.random.normal(jax.random.key(1), (5,))
    carry = carry if kind == "gru" else (carry, jnp.tanh(carry[::-1]))
    peers = carry
    for x in jax.random.normal(jax.random.key(2), (4, 3)):
        carry, peers = ours(carry, x), theirs(peers, x)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), carry, peers)


@pytest.mark.parametrize("cell", [nets.GRU(64, span=100), nets.LSTM(64, span=100)])
def test_a_span_says_how_long_memories_last_at_first(cell):
    net = nets.RecurrentQNetwork(2, nets.MLP(()), cell)
    weights = net.init(jax.random.key(0), net.start(), jnp.zeros(3))["params"]["cell"]
    parts = np.split(np.asarray(weights["inputs"]["bias"], np.float64), 3 if isinstance(cell, nets.GRU) else 4)
    lasts = 1 + np.exp(parts[1])  # 1 / (1 - sigmoid(b))
    assert 2 <= lasts.min() < 15 and 85 < lasts.max() <= 100 and 40 < lasts.mean() < 60
    if isinstance(cell, nets.LSTM):
        np.testing.assert_array_equal(parts[0], -parts[1])
    assert not parts[0].any() if isinstance(cell, nets.GRU) else not parts[2].any()
    assert not parts[-1].any()
    for block in np.split(np.asarray(weights["kernel"]), len(parts), -1):
        np.testing.assert_allclose(block @ block.T, np.eye(64), atol=1e-5)


class Stepwise:
    """A network without its own `unroll`."""

    def __init__(self, network):
        self.start, self.init, self.apply = network.start, network.init, network.apply


@pytest.mark.parametrize("cell", [nets.GRU(4), nets.LSTM(4)])
def test_an_unroll_is_the_network_step_by_step_with_a_new_memory_where_an_episode_ended(cell):
    net = nets.RecurrentQNetwork(A, nets.MLP((5,), layer_norm=True), cell, dueling=True)
    obs = jax.random.normal(jax.random.key(1), (6, 2))
    carry = jax.tree.map(lambda leaf: leaf + 0.3, net.start())
    params = net.init(jax.random.key(0), carry, obs[0])
    ended = np.array([False, True, False, False, True, False])
    zeros = jnp.zeros(6)
    window = Transition(obs, zeros.astype(jnp.int32), zeros, jnp.asarray(ended), jnp.zeros(6, bool), obs + 1)

    @partial(jax.jit, static_argnums=0)
    def found(network, params):
        seen = recurrent.unroll(network, params, carry, window)
        return seen, recurrent.ahead(network, params, seen.after, window)

    apply, memory = jax.jit(net.apply), carry
    unrolled = [found(network, params) for network in (net, Stepwise(net))]
    for t in range(6):
        q, memory = apply(params, memory, obs[t])
        beyond, _ = apply(params, memory, obs[t] + 1)
        for seen, ahead in unrolled:
            there = jax.tree.map(itemgetter(t), (seen.q, ahead, seen.after))
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), there, (q, beyond, memory))
        memory = net.start() if ended[t] else memory
    for seen, _ in unrolled:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), seen.carry, memory)

    def squares(params, network):
        return jnp.sum(recurrent.unroll(network, params, carry, window).q ** 2)

    slopes = [jax.jit(jax.grad(squares), static_argnums=1)(params, network) for network in (net, Stepwise(net))]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *slopes)


class Recall:
    """Needs no training: it answers MemoryChain's question with the sign of the context it once saw."""

    def start(self):
        return jnp.zeros(()), (jnp.zeros((), jnp.int32),)

    def init(self, key, carry, obs, /):
        return jnp.zeros(1)

    def apply(self, params, carry, obs, /):
        context = carry[0] + obs[2]
        return jnp.stack([-context, context]), (context, (carry[1][0] + 1,))


def recalling():
    return jaxrl.recurrent_pqn(Recall(), epochs=1, minibatches=1, epsilon=0.0)


def test_greedy_episodes_carry_the_memory():
    env, params = jaxrl.make("MemoryChain-bsuite", memory_length=7)
    agent = recalling()
    state = agent.init(jaxrl.key(0), jnp.zeros((1, 3)))
    result = jaxrl.evaluate(env, params, agent, state, jaxrl.key(1), 20, 20)
    np.testing.assert_array_equal(result.returns, np.ones(20))
    forgetful = agent._replace(act=lambda s, c, o, k, n, greedy=False: (agent.act(s, c, o, k, n, greedy)[0], c))
    assert abs(float(jaxrl.evaluate(env, params, forgetful, state, jaxrl.key(1), 20, 20).returns.mean())) < 0.9


def played(run, key):
    return jaxrl.advance(run, run.warmup(run.init(key)), 12)[0]


def test_a_nested_memory_starts_anew_with_each_episode_and_is_stored_as_the_agent_had_it():
    """By hand through `decide` and `record`, and by the loop from each kind of buffer's windows."""
    env, params = jaxrl.make("MemoryChain-bsuite", memory_length=2)  # episodes of 3 steps
    agent = recalling()
    state = agent.init(jaxrl.key(0), jnp.zeros((1, 3)))
    carry, ended = agent.carry(2), jnp.array([False, True])
    obs = jnp.array([[1.0, 0, -1], [1.0, 0, 1]])
    action, following = decide(agent, state, carry, obs, jaxrl.key(0), jnp.float32(0))
    step, kept = record(agent, obs, action, carry, following, jnp.zeros(2), ended, jnp.zeros(2, bool), obs)
    assert action.tolist() == [0, 1]
    assert step.carry[0].tolist() == [0, 0] and step.carry[1][0].tolist() == [0, 0]
    assert kept[0].tolist() == [-1, 0] and kept[1][0].tolist() == [1, 0]
    buffers = {
        "recent": jaxrl.recent(2, 2),
        "uniform": jaxrl.uniform(40, 8, 2, window=2),
        "prioritized": jaxrl.prioritized(40, 8, 2, window=2, stride=2),
    }
    for name, buffer in buffers.items():
        learner = agent._replace(rows=None, update=lambda s, sample, k, n: (s, sample.weight, {}))
        run = make_run(env, params, learner, buffer, LoopConfig(2, warmup=1))
        live = jax.jit(partial(played, run))(jaxrl.key(0))
        sample = buffer.sample(live.buffer, jaxrl.key(1), live.clock)
        looks = np.asarray(sample.window.carry[1][0])
        start = np.asarray(sample.index) // 2
        np.testing.assert_array_equal(looks, start % 3, err_msg=name)
        np.testing.assert_array_equal(np.asarray(live.carry[1][0]), [13 % 3] * 2)
        seen = np.asarray(sample.window.carry[0]) != 0
        np.testing.assert_array_equal(seen, start % 3 != 0, err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"gamma is 1.5; it must be a finite number in \[0, 1\]"),
        ({"n_step": 0}, "n_step is 0; it must be an integer of at least 1"),
        ({"burn_in": -1}, "burn_in is -1; it must be an integer of at least 0"),
        ({"eta": 1.1}, r"eta is 1.1; it must be a finite number in \[0, 1\]"),
        ({"eta": -0.1}, "eta is -0.1"),
        ({"rescale": 0.0}, "rescale is 0.0"),
        ({"epsilon": 2.0}, "epsilon is 2.0"),
    ],
)
def test_r2d2_refuses_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.r2d2(Sums(), **options)


@pytest.mark.parametrize("burn_in", [T, T + 3])
def test_a_burn_in_must_leave_something_to_learn_from(burn_in):
    agent = jaxrl.r2d2(Sums(), burn_in=burn_in)
    state = agent.init(jaxrl.key(0), jnp.zeros(1))
    message = rf"burn_in is {burn_in}, but .* 4 steps.*burn_in to at most 3 or window to at least {burn_in + 1}(\n|$)"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(agent.update, state, batch(list(items())), jaxrl.key(1), 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -0.5}, "gamma is -0.5"),
        ({"lambda_": 1.5}, "lambda_ is 1.5"),
        ({"epochs": 0}, "epochs is 0; it must be an integer of at least 1"),
        ({"minibatches": 0}, "minibatches is 0"),
    ],
)
def test_recurrent_pqn_refuses_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.recurrent_pqn(Sums(), **options)


def test_minibatches_must_divide_the_lanes():
    agent = jaxrl.recurrent_pqn(Sums(), minibatches=4)
    state = agent.init(jaxrl.key(0), jnp.zeros(1))
    with pytest.raises(
        ValueError, match="minibatches is 4, which does not divide the 6 lanes .*use one of 1, 2, 3, 6(\n|$)"
    ):
        jax.eval_shape(agent.update, state, batch(list(items())[:6]), jaxrl.key(1), 0.0)


class Forgetful(Sums):
    """Gives another memory than it starts with."""

    def apply(self, params, carry, obs, /):
        return super().apply(params, carry, obs)[0], carry[0]


@pytest.mark.parametrize("factory", [jaxrl.r2d2, jaxrl.recurrent_pqn])
@pytest.mark.parametrize("network", [Forgetful(), type("Flat", (Sums,), {"apply": lambda self, p, c, o: (o, c)})()])
def test_a_network_that_does_not_fit_is_refused(factory, network):
    with pytest.raises(ValueError, match=r"it must give \(q \[A\], carry\), the carry like that of start\(\)"):
        factory(network).init(jaxrl.key(0), jnp.zeros(1))


def test_epsilon_and_greedy_see_the_mask():
    agent = jaxrl.r2d2(Sums(), epsilon=1.0)
    state = agent.init(jaxrl.key(0), jnp.zeros(1))._replace(params=jnp.asarray(ONLINE))
    carry = jax.tree.map(lambda leaf: leaf[0], agent.carry(1))
    q, _ = look(ONLINE, [0.0, 0.0], 1.0)
    mask = np.arange(A) != np.argmax(q)
    obs = Masked(jnp.ones(()), jnp.asarray(mask))
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = jax.vmap(lambda key: agent.act(state, carry, obs, key, 0.0)[0])(keys)
    assert set(drawn.tolist()) == set(np.flatnonzero(mask).tolist())
    assert int(agent.act(state, carry, obs, keys[0], 0.0, greedy=True)[0]) == best(q, mask)
    assert int(explore.greedy(jnp.asarray(q))) == np.argmax(q)


def test_the_last_action_and_reward_are_seen_beside_the_observation():
    """Also where an episode is cut: in its true last observation, and in no other's first."""
    env, params = jaxrl.make("CartPole-v1", max_steps_in_episode=3)
    seen, plain = wrappers.previous_step(wrappers.scale_reward(env, 0.5)), env
    (obs, state), (bare, bare_state) = (e.reset(jaxrl.key(0), params) for e in (seen, plain))
    np.testing.assert_array_equal(obs, [*bare, 0, 0, 0])
    for t, action in enumerate([1, 0, 1, 1]):
        obs, state, reward, _, cut, info = seen.step(jaxrl.key(t), state, action, params)
        bare, bare_state, *_, bare_info = plain.step(jaxrl.key(t), bare_state, action, params)
        last = [action == 0, action == 1, 0.5]
        np.testing.assert_allclose(info["final_observation"], [*bare_info["final_observation"], *last], rtol=1e-6)
        assert bool(cut) == (t == 2) and float(reward) == 0.5
        np.testing.assert_allclose(obs, [*bare, 0, 0, 0] if cut else info["final_observation"], rtol=1e-6)
    space = seen.observation_space()
    assert (
        space.shape == (7,) and space.low[4:].tolist() == [0, 0, -np.inf] and space.high[4:].tolist() == [1, 1, np.inf]
    )
    assert built("r2d2", previous=True).env.observation_space() == wrappers.previous_step(env).observation_space()
    for wrong, message in (("Pendulum-v1", "needs Discrete actions"), ("Catch-bsuite", "flatten it first")):
        with pytest.raises(ValueError, match=message):
            wrappers.previous_step(jaxrl.make(wrong)[0])


def built(recipe, env_id="CartPole-v1", network=None, **changes):
    config = recipes.base.replaced(
        recipes.default(recipe, env_id), {name.replace("__", "."): value for name, value in changes.items()}
    )
    return recipes.build(recipe, config, *jaxrl.make(env_id), network)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            "r2d2",
            {"agent__burn_in": 24, "replay__window": 24},
            "agent.burn_in is 24, but .*replay.window 24 .* most 23",
        ),
        ("r2d2", {"agent__burn_in": -1}, "agent.burn_in is -1"),
        ("r2d2", {"agent__n_step": 0}, "n_step is 0"),
        ("r2d2", {"agent__eta": 2.0}, "eta is 2.0"),
        ("r2d2", {"replay__window": 0}, "replay.window is 0"),
        ("r2d2", {"replay__stride": 0}, "replay.stride is 0"),
        ("r2d2", {"replay__batch_size": 0}, "replay.batch_size is 0"),
        ("r2d2", {"replay__capacity": 320, "replay__window": 24}, "capacity=320 is 10 rows"),
        ("r2d2", {"agent__noisy": True}, "agent.noisy is true, but recurrent networks have no noisy layers"),
        ("pqn_rnn", {"agent__cell": "gtu"}, "unknown agent.cell 'gtu'; did you mean 'gru'"),
        ("pqn_rnn", {"agent__width": 0}, "agent.width is 0"),
        ("pqn_rnn", {"agent__span": 1.0}, "agent.span is 1.0"),
        ("pqn_rnn", {"agent__minibatches": 5}, "agent.minibatches is 5, which does not divide num_envs 32"),
        ("pqn_rnn", {"agent__learning_rate": 0.0}, "agent.learning_rate is 0.0"),
        ("pqn_rnn", {"network": nets.QNetwork(2)}, r"has no start\(\) for one observation of CartPole"),
        ("r2d2", {"network": nets.RecurrentQNetwork(3)}, r"gives \[3\] values .* \(q \[2\], carry\)"),
    ],
)
def test_recipes_refuse_settings_in_one_line(recipe, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        built(recipe, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("recipe", "env_id"), [("r2d2", "FrozenLake-v1"), ("pqn_rnn", "Breakout-MinAtar")])
def test_recipes_meet_other_observations_and_tell_more_when_asked(recipe, env_id):
    """Indices and pictures; traced only."""
    env, params = jaxrl.make(env_id)
    changes = {"agent.diagnostics": True, "agent.cell": "lstm", "agent.span": 20.0, "agent.dueling": True}
    setup = recipes.build(recipe, recipes.base.replaced(recipes.default(recipe), changes), env, params)
    run = make_run(setup.env, params, setup.agent, setup.buffer, setup.loop)
    _, metrics = jax.eval_shape(lambda key: run.step(run.init(key)), jaxrl.key(0))
    assert {"loss", "q", "gradient_norm", "dormant_share", "largest_priority"} <= metrics.keys()


def test_windows_without_a_memory_are_refused():
    env, params = jaxrl.make("CartPole-v1")
    agent = jaxrl.r2d2(nets.RecurrentQNetwork(2, nets.MLP((3,)), nets.GRU(4)), burn_in=1)
    buffer = jaxrl.uniform(64, 4, 2, window=3, carry=False)
    run = jaxrl.make_run(env, params, agent, buffer, jaxrl.LoopConfig(2, warmup=4))
    with pytest.raises(ValueError, match="hold no memory of the network's kind: make the buffer with carry=True"):
        jax.eval_shape(lambda key: run.step(run.init(key)), jaxrl.key(0))
