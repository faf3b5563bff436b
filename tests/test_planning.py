"""Dynamic programming against published values, linear programs, brute force, simulation and all paths of an update."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import jaxrl
from jaxrl import memory, planning
from jaxrl.envs.api import TabularMDP


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def process(env_id, **settings):
    return jaxrl.tabular_mdp(*jaxrl.make(env_id, **settings))


def random_mdp(seed, states=6, actions=3, terminals=1):
    """Chances of many sizes, about half of them 0; the last states terminal, and reached sooner or later by all."""
    rng = np.random.default_rng(seed)
    P = rng.exponential(size=(states, actions, states)) ** 2 * (rng.random((states, actions, states)) < 0.5)
    P[..., -1] += 0.05 + (P.sum(-1) == 0)
    P /= P.sum(-1, keepdims=True)
    R = rng.normal(size=(states, actions))
    terminal = np.arange(states) >= states - terminals
    P[terminal], R[terminal] = np.eye(states)[terminal, None], 0
    return TabularMDP(P, R, terminal, np.full(states, 1 / states))


def chain(gamma_one_ok=True):
    """Two states on the way to a third, which is terminal; without it the second earns 1 for ever."""
    P = np.zeros((3, 1, 3))
    P[0, 0, 1] = P[1, 0, 2 if gamma_one_ok else 1] = P[2, 0, 2] = 1
    return TabularMDP(P, np.array([[1.0], [1.0], [0.0]]), np.array([False, False, True]), np.eye(3)[0])


def stacked(which, mdps):
    return jax.tree.map(lambda *leaves: np.stack([leaves[i] for i in which]), *mdps)


def epsilon_greedy(q, epsilon):
    policy = np.full(q.shape, epsilon / q.shape[1])
    policy[np.arange(len(q)), q.argmax(1)] += 1 - epsilon
    return policy


# Published values


@pytest.mark.parametrize(
    "name, slippery, sure",
    [
        ("4x4", [0.068891, 0.180472, 0.542026], [0.590490, 0.773781, 0.950990]),
        ("8x8", [0.006411, 0.048250, 0.414640], [0.254187, 0.513342, 0.877521]),
    ],
)
def test_frozen_lake(x64, name, slippery, sure):
    lakes = [process("FrozenLake-v1", map_name=name, is_slippery=slips) for slips in (True, False)]
    gammas, values = np.tile([0.9, 0.95, 0.99], 2), slippery + sure
    plan = jax.vmap(planning.policy_iteration if name == "4x4" else planning.value_iteration)(
        stacked(np.repeat(np.arange(2), 3), lakes), gammas
    )
    np.testing.assert_allclose(plan.values[:, 0], values, rtol=0, atol=1e-6)
    assert plan.converged.all()
    plan = jax.vmap(planning.value_iteration, (None, 0))(planning.sparse(lakes[0]), gammas[:3])
    np.testing.assert_allclose(plan.values[:, 0], slippery, rtol=0, atol=1e-6)


def test_frozen_lake_by_default_and_by_the_clock(x64):
    mdp = process("FrozenLake-v1")
    q = planning.value_iteration(mdp, 0.99).q
    np.testing.assert_allclose(q[0], [0.542026, 0.527762, 0.527762, 0.522342], rtol=0, atol=1.6e-6)
    for name, steps, chance in (("4x4", 100, 0.744190), ("8x8", 200, 0.913220)):
        plan = planning.finite_horizon(process("FrozenLake-v1", map_name=name), 1.0, steps)
        np.testing.assert_allclose(plan.values[0, 0], chance, rtol=0, atol=1e-6)


def test_blackjack(x64):
    mdp = process("Blackjack-v1")
    plan = planning.value_iteration(planning.sparse(mdp), 1)
    np.testing.assert_allclose(mdp.start @ plan.values, -0.043113, rtol=0, atol=1e-6)


def test_grid_world_of_the_book():
    """Sutton and Barto (2018), figures 3.2 and 3.5."""
    mdp = process("GridWorld-v0")
    optimal = [22.0, 24.4, 22.0, 19.4, 17.5, 19.8, 22.0, 19.8, 17.8, 16.0, 17.8, 19.8, 17.8, 16.0, 14.4]
    optimal += [16.0, 17.8, 16.0, 14.4, 13.0, 14.4, 16.0, 14.4, 13.0, 11.7]
    uniform = [3.3, 8.8, 4.4, 5.3, 1.5, 1.5, 3.0, 2.3, 1.9, 0.5, 0.1, 0.7, 0.7, 0.4, -0.4]
    uniform += [-1.0, -0.4, -0.4, -0.6, -1.2, -1.9, -1.3, -1.2, -1.4, -2.0]
    np.testing.assert_allclose(planning.value_iteration(mdp, 0.9).values, optimal, rtol=0, atol=0.051)
    plan = planning.evaluate(mdp, 0.9, np.full((25, 4), 0.25))
    np.testing.assert_allclose(plan.values, uniform, rtol=0, atol=0.051)


def thomas_grid():
    """Thomas's 4x4 grid: the cell that is entered pays, a bump pays nothing. Actions: down, right, up, left."""
    pays = np.full(16, -1.0)
    pays[[6, 7, 15]] = -10, 1, 10
    P, R = np.zeros((16, 4, 16)), np.zeros((16, 4))
    for cell, (action, move) in itertools.product(range(15), enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)])):
        row, column = np.clip(np.add(divmod(cell, 4), move), 0, 3)
        after = row * 4 + column
        P[cell, action, after], R[cell, action] = 1, pays[after] * (after != cell)
    P[15, :, 15] = 1
    return TabularMDP(P, R, np.arange(16) == 15, np.eye(16)[0])


def test_the_grid_of_thomas(x64):
    mdp = thomas_grid()
    optimal = [3.27, 4.74, 6.38, 8.2, 3.12, 4.58, 8.2, 8.0, 4.58, 6.2, 8.0, 10.0, 6.2, 8.0, 10.0, 0]
    plan = planning.policy_iteration(mdp, 0.9)
    np.testing.assert_allclose(plan.values, optimal, rtol=0, atol=0.0051)
    soft = planning.epsilon_greedy(0.3)(jnp.round(plan.q, 9))  # ties are shared
    values = planning.evaluate(mdp, 0.9, soft).values
    np.testing.assert_allclose(values[:4], [0.299, 1.52, 3.17, 5.86], rtol=0, atol=0.0051)


# Other ways to the same values


def linear_program(mdp, gamma):
    """min sum v subject to v >= R_a + gamma P_a v for every action, v 0 in terminal states."""
    live = ~mdp.terminal
    P = mdp.P[live][..., live]
    A = gamma * P - np.eye(live.sum())[:, None]
    found = linprog(np.ones(live.sum()), A.reshape(-1, live.sum()), -mdp.R[live].ravel(), bounds=(None, None))
    values = np.zeros(len(live))
    values[live] = found.x
    return values


def test_two_hundred_processes_solved_four_ways(x64):
    gammas = np.tile([0.9, 1.0], 100)
    mdps = [random_mdp(seed, terminals=seed % 3 if gamma < 1 else 1) for seed, gamma in enumerate(gammas)]
    program = np.stack([linear_program(mdp, gamma) for mdp, gamma in zip(mdps, gammas)])
    dense = stacked(range(200), mdps)
    successors = np.broadcast_to(np.arange(6), (200, 6, 6))
    sparse = planning.SparseMDP(successors, *dense)
    for solve, many in (
        (planning.value_iteration, dense),
        (planning.value_iteration, sparse),
        (planning.policy_iteration, dense),
        (planning.modified_policy_iteration, dense),
    ):
        plan = jax.jit(jax.vmap(solve))(many, gammas)
        assert plan.converged.all()
        np.testing.assert_allclose(plan.values, program, rtol=1e-7, atol=2e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.8, 1.0])
def test_no_deterministic_policy_is_better(x64, gamma):
    mdp = random_mdp(3, states=4)
    every = np.array(list(itertools.product(range(3), repeat=4)))
    values = []
    for policy in every:
        P, R = mdp.P[np.arange(4), policy], mdp.R[np.arange(4), policy]
        live = ~mdp.terminal
        v = np.zeros(4)
        v[live] = np.linalg.solve(np.eye(3) - gamma * P[live][:, live], R[live])
        values.append(v)
    plan = planning.policy_iteration(mdp, gamma)
    np.testing.assert_allclose(plan.values, np.max(values, axis=0), rtol=0, atol=1e-12)
    one_by_one = jax.vmap(lambda policy: planning.evaluate(mdp, gamma, policy).values)(every)
    np.testing.assert_allclose(one_by_one, values, rtol=0, atol=1e-12)
    q = mdp.R + gamma * mdp.P @ (np.max(values, axis=0) * ~mdp.terminal)
    np.testing.assert_allclose(plan.q, q * ~mdp.terminal[:, None], rtol=0, atol=1e-12)


def test_the_operators_are_their_equations(x64):
    mdp, v = random_mdp(5), np.random.default_rng(0).normal(size=6)
    policy = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    q = np.zeros((6, 3))
    for s, a, after in itertools.product(range(5), range(3), range(6)):
        q[s, a] += mdp.P[s, a, after] * (mdp.R[s, a] + 0.7 * v[after] * (after != 5))
    for form in (mdp, planning.sparse(mdp)):
        np.testing.assert_allclose(jax.jit(planning.action_values)(form, 0.7, v), q, atol=1e-12)
    np.testing.assert_allclose(jax.jit(planning.optimality)(mdp, 0.7, v), q.max(1), atol=1e-12)
    found = jax.jit(planning.expectation)(mdp, 0.7, policy, v)
    np.testing.assert_allclose(found, (policy * q).sum(1), atol=1e-12)
    np.testing.assert_array_equal(planning.improve(jnp.asarray(q)), q.argmax(1))


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "CliffWalking-v1", "GridWorld-v0"])
def test_evaluate_is_the_mean_of_rollouts(env_id):
    gamma, steps, lanes = 0.8, 60, 4000  # 0.8^60 is 2e-6
    env, params = jaxrl.make(env_id)
    mdp = jaxrl.tabular_mdp(env, params)
    states, actions = mdp.R.shape
    policy = np.random.default_rng(2).dirichlet(np.ones(actions), states)
    choose = jax.tree_util.Partial(lambda logits, obs, key: jax.random.categorical(key, logits[obs]), np.log(policy))
    steps_made, _, _ = jaxrl.rollout(env, params, choose, jaxrl.key(3), lanes, steps)
    ended = np.asarray(steps_made.terminated | steps_made.truncated)
    alive = np.concatenate([np.ones((1, lanes)), np.cumprod(1 - ended, axis=0)[:-1]])
    returns = (gamma ** np.arange(steps)[:, None] * alive * np.asarray(steps_made.reward)).sum(0)
    expected = mdp.start @ np.asarray(planning.evaluate(mdp, gamma, policy).values)
    assert abs(returns.mean() - expected) < 4 * returns.std() / np.sqrt(lanes) + 1e-4


def test_a_finite_horizon_is_a_recursion(x64):
    mdp, gamma, horizon = random_mdp(7), 0.9, 5

    def value(state, steps, backup):
        if steps == 0 or mdp.terminal[state]:
            return 0.0
        return backup([q(state, action, steps, backup) for action in range(3)])

    def q(state, action, steps, backup):
        return mdp.R[state, action] + gamma * sum(
            mdp.P[state, action, s] * value(s, steps - 1, backup) for s in range(6)
        )

    for form in (mdp, planning.sparse(mdp)):
        plan = planning.finite_horizon(form, gamma, horizon)
        soft = planning.monte_carlo(form, gamma, horizon, 0.3)
        for time, state in itertools.product(range(2, horizon + 1), range(6)):
            got = plan.values[time, state], soft.values[time, state]
            expected = (
                value(state, horizon - time, max),
                value(state, horizon - time, lambda q: 0.7 * max(q) + 0.3 * np.mean(q)),
            )
            np.testing.assert_allclose(got, expected, atol=1e-12)
        np.testing.assert_allclose(plan.q[2, 1, 2], q(1, 2, 3, max), atol=1e-12)
    np.testing.assert_array_equal(plan.policy, np.argmax(plan.q, axis=2))


# Each learner's expected update


def paths(mdp, policy, state, action, steps):
    """Every (chance, rewards, states) of `steps` steps from (state, action) along `policy`, shorter where it ends."""
    for after in np.flatnonzero(mdp.P[state, action]):
        chance, reward = mdp.P[state, action, after], mdp.R[state, action]
        if steps == 1 or mdp.terminal[after]:
            yield chance, [reward], [after]
            continue
        for then in range(policy.shape[1]):
            for more, rewards, states in paths(mdp, policy, after, then, steps - 1):
                yield chance * policy[after, then] * more, [reward, *rewards], [after, *states]


def expected_update(mdp, policy, target, steps):
    """E[target(rewards, states)] for every state and action, over all paths."""
    q = np.zeros(mdp.R.shape)
    for state, action in np.argwhere(np.repeat(~mdp.terminal[:, None], mdp.R.shape[1], 1)):
        q[state, action] = sum(p * target(r, s) for p, r, s in paths(mdp, policy, state, action, steps))
    return q


def n_step_target(bootstrap, gamma, terminal):
    def target(rewards, states):
        tail = 0 if terminal[states[-1]] else gamma ** len(rewards) * bootstrap[states[-1]]
        return sum(gamma**i * r for i, r in enumerate(rewards)) + tail

    return target


def lambda_target(bootstrap, gamma, lambda_, terminal):
    def target(rewards, states):
        g = bootstrap[states[-1]] * ~terminal[states[-1]]
        for i in reversed(range(len(rewards))):
            value = bootstrap[states[i]] * ~terminal[states[i]]
            g = rewards[i] + gamma * ((1 - lambda_) * value + lambda_ * (g if i + 1 < len(rewards) else value))
        return g

    return target


SMALL = random_mdp(11, states=4, actions=2)


def stays(q, update):
    np.testing.assert_allclose(update, q, rtol=0, atol=2e-6)


def test_q_learning_and_sarsa_stay_where_they_should(x64):
    gamma, epsilon = 0.9, 0.3
    q = np.asarray(planning.q_learning(SMALL, gamma).q)
    uniform = np.full((4, 2), 0.5)
    stays(q, expected_update(SMALL, uniform, n_step_target(q.max(1), gamma, SMALL.terminal), 1))
    q = np.asarray(planning.sarsa(SMALL, gamma, epsilon).q)
    policy = epsilon_greedy(q, epsilon)
    for n in (1, 2):  # n-step SARSA of expectation shares it
        stays(q, expected_update(SMALL, policy, n_step_target((policy * q).sum(1), gamma, SMALL.terminal), n))
    assert np.abs(q - planning.q_learning(SMALL, gamma).q).max() > 0.01


def test_n_step_q_learning_without_correction(x64):
    gamma = 0.9
    behaviour = np.random.default_rng(4).dirichlet(np.ones(2), 4)
    for form, n in ((SMALL, 1), (SMALL, 3), (planning.sparse(SMALL), 2)):
        q = np.asarray(planning.n_step_q(form, gamma, n, behaviour).q)
        stays(q, expected_update(SMALL, behaviour, n_step_target(q.max(1), gamma, SMALL.terminal), n))
    q = np.asarray(planning.n_step_q(SMALL, gamma, 2, planning.epsilon_greedy(0.3)).q)
    stays(q, expected_update(SMALL, epsilon_greedy(q, 0.3), n_step_target(q.max(1), gamma, SMALL.terminal), 2))


def test_peng_is_the_limit_of_long_lambda_returns(x64):
    gamma, lambda_, epsilon = 0.7, 0.6, 0.4
    q = np.asarray(planning.peng(SMALL, gamma, lambda_, epsilon).q)
    policy = epsilon_greedy(q, epsilon)
    short = expected_update(SMALL, policy, lambda_target(q.max(1), gamma, lambda_, SMALL.terminal), 3)
    assert np.abs(short - q).max() > 1e-4  # a window of 3 steps is not yet the limit
    long = q.max(1)[:, None] * np.ones(2)  # G after no step: the bootstrap itself
    for _ in range(60):
        onward = (1 - lambda_) * q.max(1) + lambda_ * (policy * long).sum(1)
        long = np.where(SMALL.terminal[:, None], 0, SMALL.R + gamma * SMALL.P @ np.where(SMALL.terminal, 0, onward))
    stays(q, long)
    options = dict(n=40, lambda_=lambda_, behaviour=planning.epsilon_greedy(epsilon))
    stays(q, planning.fixed_point(SMALL, gamma, planning.best, **options).q)
    windows = dict(options, n=3)
    q = np.asarray(planning.fixed_point(SMALL, gamma, planning.best, **windows).q)
    policy = epsilon_greedy(q, epsilon)
    stays(q, expected_update(SMALL, policy, lambda_target(q.max(1), gamma, lambda_, SMALL.terminal), 3))


def test_tree_backup_stays_at_its_target(x64):
    """G = R + gamma [sum of pi Q over the actions not taken + pi(taken) G'] (Sutton and Barto 2018, equation 7.16)."""
    gamma, rng = 0.9, np.random.default_rng(6)
    behaviour, target = rng.dirichlet(np.ones(2), 4), rng.dirichlet(np.ones(2), 4)
    q = np.asarray(planning.tree_backup(SMALL, gamma, target).q)

    def tree(state, action, steps):
        total = SMALL.R[state, action]
        for after in np.flatnonzero(SMALL.P[state, action] * ~SMALL.terminal):
            leaf = target[after] @ q[after]
            if steps > 1:
                leaf = sum(
                    behaviour[after, then]
                    * (target[after] @ q[after] + target[after, then] * (tree(after, then, steps - 1) - q[after, then]))
                    for then in range(2)
                )
            total += gamma * SMALL.P[state, action, after] * leaf
        return total

    stays(q[:3], [[tree(state, action, 3) for action in range(2)] for state in range(3)])


# Forms, batches, precision


def test_sparse_and_dense_are_the_same_process():
    mdp = random_mdp(9)
    back = planning.dense(planning.sparse(mdp))
    for one, other in zip(mdp, back):
        np.testing.assert_array_equal(one, other)
    twice = planning.sparse(mdp)
    twice = twice._replace(next=np.repeat(twice.next, 2, -1), chance=np.repeat(twice.chance / 2, 2, -1))
    np.testing.assert_allclose(planning.dense(twice).P, mdp.P, atol=1e-15)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), 6)
    for chosen, options in ((policy, {}), (policy.argmax(1), {"method": "iterative"})):
        exact = planning.evaluate(mdp, 0.9, chosen)
        found = planning.evaluate(twice, 0.9, chosen, **options)
        np.testing.assert_allclose(found.values, exact.values, atol=1e-5)
        np.testing.assert_allclose(found.q, exact.q, atol=1e-5)


@pytest.mark.parametrize("form", [planning.sparse, lambda mdp: mdp])
def test_discounts_at_once_are_discounts_one_by_one(x64, form):
    """In any order and number: those of a sparse process are solved a few at a time."""
    mdp = form(random_mdp(1))
    gammas = np.array([0.9, 0.0, 0.97, 0.5, 0.3, 0.6, 0.95, 0.1, 0.8, 0.2, 0.7])
    tolerances = np.geomspace(1e-3, 1e-9, 11)
    once = jax.vmap(lambda *pair: planning.value_iteration(mdp, pair[0], tolerance=pair[1]))(gammas, tolerances)
    for i in range(11):
        alone = planning.value_iteration(mdp, gammas[i], tolerance=tolerances[i])
        assert once.iterations[i] == alone.iterations  # what is done is not swept again
        np.testing.assert_allclose(once.values[i], alone.values, atol=1e-12)
    assert once.iterations[1] < once.iterations[2]


def test_many_successors_are_summed_in_a_loop(x64):
    mdp, v = random_mdp(1, 8, 70), np.arange(8.0)
    dense, sparse = (jax.jit(planning.action_values)(form, 0.9, v) for form in (mdp, planning.sparse(mdp)))
    np.testing.assert_allclose(dense, sparse, atol=1e-12)


def test_rewards_at_once_are_rewards_one_by_one():
    mdp = random_mdp(1)
    R = np.stack([mdp.R, -mdp.R])
    once = jax.vmap(lambda R: planning.sarsa(mdp._replace(R=R), 0.9, 0.1).q)(R)
    for i in range(2):
        np.testing.assert_allclose(once[i], planning.sarsa(mdp._replace(R=R[i]), 0.9, 0.1).q, rtol=2e-6, atol=2e-6)


def test_dense_discounts_are_one_matrix_product():
    mdp = jax.tree.map(jnp.asarray, random_mdp(1, 24, 3))
    solve = jax.jit(jax.vmap(planning.value_iteration, (None, 0)))
    products = re.findall(
        r"= f32\[([\d,]*)\]\S* dot\(", solve.lower(mdp, jnp.linspace(0.1, 0.9, 5)).compile().as_text()
    )
    assert products and set(products) == {"72,5"}


def test_a_thousand_states_in_float32():
    rng = np.random.default_rng(0)
    P = rng.exponential(size=(1000, 2, 1000))
    P /= P.sum(-1, keepdims=True)
    mdp = TabularMDP(P, rng.normal(size=(1000, 2)), np.zeros(1000, bool), np.full(1000, 1e-3))
    gammas = np.linspace(0.9, 0.99, 64)
    solve = jax.vmap(lambda gamma: planning.value_iteration(mdp, gamma))
    plan = solve(gammas)
    with jax.enable_x64(True):
        exact = solve(gammas)
    assert plan.values.dtype == np.float32 and exact.values.dtype == np.float64
    # By the largest change alone it would be 230 to 2,700; in float32 rounding never lets bounds of 1e-6 be reached.
    assert plan.converged.all() and plan.iterations.max() < 60 and exact.iterations.max() < 20
    np.testing.assert_allclose(plan.values[0], exact.values[0], rtol=2e-6)
    np.testing.assert_allclose(plan.values, exact.values, rtol=2e-5)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("terminals", [0, 1])
def test_values_are_within_the_tolerance(x64, gamma, terminals):
    for seed, tolerance in itertools.product(range(20), (1e-2, 1e-6)):
        mdp = random_mdp(seed, terminals=terminals)
        exact = planning.policy_iteration(mdp, gamma).values
        found = planning.value_iteration(mdp, gamma, tolerance=tolerance).values
        assert np.abs(found - exact).max() <= tolerance


def test_values_of_two_steps_are_within_the_tolerance(x64):
    options = {"n": 2, "behaviour": np.full((6, 3), 1 / 3), "lambda_": 0.5}
    rough, fine = (
        planning.fixed_point(random_mdp(0, terminals=0), 0.99, planning.best, tolerance=tolerance, **options).q
        for tolerance in (1e-2, 1e-10)
    )
    assert 1e-6 < np.abs(rough - fine).max() <= 1e-2


def test_at_gamma_one_policies_end(x64):
    """Where all actions are equally good the first may bump into a wall for ever; policy iteration's do not."""
    mdp = process("FrozenLake-v1", is_slippery=False)
    plan = planning.policy_iteration(mdp, 1.0)
    holes = mdp.terminal & (mdp.R.max(1) == 0)
    state, steps = 0, 0
    while not mdp.terminal[state] and steps < 20:
        state, steps = int(mdp.P[state, plan.policy[state]].argmax()), steps + 1
    assert state == 15 and plan.values[0] == 1 and holes[5]
    np.testing.assert_allclose(planning.evaluate(mdp, 1.0, plan.policy).values[0], 1.0)
    bumps = planning.evaluate(mdp, 1.0, np.zeros(16, int))  # to the left for ever, which pays nothing
    assert bumps.converged and bumps.values[0] == 0


def test_a_policy_that_never_ends_is_no_start(x64):
    """To bump for ever costs CliffWalking's walker without limit: its 0 must not pass for better than the way's -13."""
    mdp = process("CliffWalking-v1")
    assert np.asarray(planning.policy_iteration(mdp, 1.0).values) @ mdp.start == pytest.approx(-13, abs=1e-6)


# What is refused


def broken(**leaves):
    return chain()._replace(**leaves)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: planning.value_iteration(3, 0.9), "the process is a int; it must be a TabularMDP"),
        (lambda: planning.value_iteration(broken(P=chain().P * 0.9), 0.9), r"P of the process sums to 0.9 at \[0, 0\]"),
        (lambda: planning.value_iteration(broken(P=-chain().P), 0.9), r"P of the process is -1 at \[0, 0, 1\]"),
        (lambda: planning.value_iteration(broken(P=chain().P * np.nan), 0.9), r"P of the process is nan"),
        (lambda: planning.value_iteration(broken(R=chain().R * np.nan), 0.9), r"R\[0, 0\] of the process is nan"),
        (lambda: planning.value_iteration(broken(R=np.ones(3)), 0.9), r"R of the process has shape \(3,\)"),
        (lambda: planning.value_iteration(broken(P=chain().P[:2]), 0.9), r"P of the process has shape \(2, 1, 3\)"),
        (lambda: planning.value_iteration(broken(terminal=np.zeros(2, bool)), 0.9), r"terminal of .* shape \(2,\)"),
        (lambda: planning.value_iteration(broken(terminal=np.zeros(3)), 0.9), "terminal of the process is float"),
        (lambda: planning.sparse(broken(P=chain().P * 0.9)), "sums to 0.9"),
        (lambda: planning.value_iteration(chain(), 1.5), "gamma is 1.5"),
        (lambda: planning.value_iteration(chain(), np.array([0.5])), r"gamma has shape \(1,\).*vmap"),
        (lambda: planning.value_iteration(chain(), jnp.float32(-1)), "gamma is -1.0"),
        (lambda: planning.value_iteration(chain(False), 1), "gamma is 1, but state 0 earns rewards"),
        (lambda: planning.policy_iteration(chain(False), 1.0), "gamma is 1, but state 0 earns rewards"),
        (lambda: planning.sarsa(planning.sparse(chain(False)), 1.0, 0.1), "gamma is 1, but state 0 earns rewards"),
        (lambda: planning.value_iteration(chain(), 0.9, tolerance=-1), "tolerance is -1"),
        (lambda: planning.value_iteration(chain(), 0.9, limit=0), "limit is 0"),
        (lambda: planning.sarsa(chain(), 0.9, 1.1), "epsilon is 1.1"),
        (lambda: planning.epsilon_greedy(-0.1), "epsilon is -0.1"),
        (lambda: planning.peng(chain(), 0.9, 2, 0.1), "lambda_ is 2"),
        (lambda: planning.peng(chain(), 0.9, 0.5, float("nan")), "epsilon is nan"),
        (lambda: planning.n_step_q(chain(), 0.9, 0, np.ones((3, 1))), "n is 0"),
        (lambda: planning.fixed_point(chain(), 0.9, planning.best, n=2), "n is 2 without a behaviour"),
        (lambda: planning.n_step_q(chain(), 0.9, 2, np.ones((2, 1))), r"policy has shape \(2, 1\)"),
        (lambda: planning.evaluate(chain(), 0.9, np.zeros((3, 1))), r"policy sums to 0 at \[0\]"),
        (lambda: planning.evaluate(chain(), 0.9, np.zeros(3)), "policy is float"),
        (lambda: planning.evaluate(chain(), 0.9, np.ones(3, int)), "policy holds 1; .* 0 to 0"),
        (lambda: planning.evaluate(chain(), 0.9, np.zeros(3, int), method="quick"), "unknown method 'quick'"),
        (lambda: planning.evaluate(chain(False), 1.0, np.zeros(3, int)), "reaches no terminal state under the policy"),
        (lambda: planning.finite_horizon(chain(), 0.9, 0), "horizon is 0"),
        (lambda: planning.modified_policy_iteration(chain(), 0.9, 0), "sweeps is 0"),
        (
            lambda: planning.value_iteration(planning.sparse(chain())._replace(next=np.full((3, 1), 3)), 0.9),
            "holds 3",
        ),
        (
            lambda: planning.value_iteration(random_mdp(0), 0.999, limit=8),
            "value_iteration did not converge: residual",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 50)
    for call in (planning.policy_iteration, lambda *a: planning.finite_horizon(*a, 9)):
        with pytest.raises(ValueError, match="needs .* bytes"):
            call(chain(), 0.9)


def test_rewards_without_end_are_told_outside_and_inside_jit():
    """A loop that pays, beside a way out: there is no optimum at gamma 1."""
    P = np.zeros((2, 2, 2))
    P[0, 0, 0] = P[0, 1, 1] = P[1, :, 1] = 1
    mdp = TabularMDP(P, np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([False, True]), np.eye(2)[0])
    for solve in (planning.value_iteration, planning.policy_iteration):
        with pytest.raises(ValueError, match="did not converge: residual"):
            solve(mdp, 1.0, limit=100)
    assert not jax.jit(lambda gamma: planning.value_iteration(mdp, gamma, limit=100).converged)(1.0)
    assert not jax.jit(lambda gamma: planning.evaluate(mdp, gamma, np.zeros(2, int)).converged)(1.0)
    assert jax.jit(lambda gamma: planning.evaluate(mdp, gamma, np.ones(2, int)).converged)(1.0)
