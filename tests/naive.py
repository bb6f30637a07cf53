"""The obvious, slow version of every formula: the yardstick for the fast code.

Plain functions of plain arrays, independent of the package. Each heading is a room, and "section"
in a docstring is that of theory/<room>.md.
"""

import collections
import itertools
import math

import numpy as np
from numpy.polynomial import Polynomial
from scipy import integrate, linalg, optimize, special

# sgd: Gaussian moments (section 2)


def overlap_matrix(M, Q, P):
    """Omega = [[Q, M], [M^T, P]], the covariance of the fields z = (lambda, lambda*)."""
    return np.block([[Q, M], [M.T, P]])


def output_weights(a, a_star):
    """The diagonal (-a, a*) of C: e = z^T C z + b + sqrt(Delta) xi."""
    return np.concatenate([-np.asarray(a), a_star])


def isserlis(cov, indices):
    """E[z_i z_j ...] of a centred Gaussian vector, the sum over all pairings of the indices."""
    if len(indices) % 2:
        return 0.0
    if not len(indices):
        return 1.0
    first, *rest = indices
    return sum(
        cov[first][other] * isserlis(cov, rest[:k] + rest[k + 1 :]) for k, other in enumerate(rest)
    )


def error_moment(M, Q, P, a, a_star, b, Delta, j, indices):
    """E[e^j z_i z_k ...]: e^j expanded as a multinomial, every term by its pairings."""
    c = output_weights(a, a_star)
    xi = len(c)
    cov = linalg.block_diag(overlap_matrix(M, Q, P), 1.0).tolist()
    terms = [(c[i], [i, i]) for i in range(xi)] + [(b, []), (math.sqrt(Delta), [xi])]
    total = 0.0
    for chosen in itertools.combinations_with_replacement(range(len(terms)), j):
        repeats = collections.Counter(chosen).values()
        weight = math.factorial(j) / math.prod(math.factorial(r) for r in repeats)
        weight *= math.prod(terms[i][0] for i in chosen)
        if weight:
            fields = [field for i in chosen for field in terms[i][1]]
            total += weight * isserlis(cov, fields + list(indices))
    return total


def tilted_series(M, Q, P, a, a_star, b, Delta, order):
    """Series in t of E[exp(t e)] (order+1,) and of the tilted covariance (order+1, n, n)."""
    omega, C = overlap_matrix(M, Q, P), np.diag(output_weights(a, a_star))
    powers = [np.linalg.matrix_power(2 * C @ omega, k) for k in range(order + 1)]
    log = np.zeros(max(order, 2) + 1)
    log[1:3] = b, Delta / 2
    for k in range(1, order + 1):
        log[k] += np.trace(powers[k]) / (2 * k)
    norm = [1.0]
    for k in range(1, order + 1):
        norm.append(sum(i * log[i] * norm[k - i] for i in range(1, k + 1)) / k)
    return np.array(norm), omega @ np.array(powers)


def tilted_moment(M, Q, P, a, a_star, b, Delta, j, indices):
    """E[e^j z_i z_k ...] as the coefficient of t^j, times j!, of the tilted pairings."""
    norm, cov = tilted_series(M, Q, P, a, a_star, b, Delta, j)
    n = cov.shape[1]
    cov = [[Polynomial(cov[:, i, k]) for k in range(n)] for i in range(n)]
    series = Polynomial(norm) * isserlis(cov, list(indices))
    return math.factorial(j) * series.coef[j]


def sgd_risk(M, Q, P, a, a_star, b=0.0):
    """R = E[(e - sqrt(Delta) xi)^2] / 2 of the quadratic network."""
    CO = np.diag(output_weights(a, a_star)) @ overlap_matrix(M, Q, P)
    return ((np.trace(CO) + b) ** 2 + 2 * np.trace(CO @ CO)) / 2


# sgd: drift, mean step and fluctuations of the quadratic network (sections 3 and 9)


def constrain_norms(M, Q, dM, dQ):
    """The drift with every row of W held at constant norm (section 3, spherical)."""
    f = np.diag(dQ) / np.diag(Q)
    return dM - f[:, None] * M / 2, dQ - (f[:, None] + f) * Q / 2


def sgd_drift(
    M,
    Q,
    P,
    a,
    a_star,
    *,
    gamma,
    b=0.0,
    Delta=0.0,
    batch=1,
    noise=True,
    spherical=False,
    gamma_a=0.0,
):
    """(dM, dQ, da) per unit alpha of section 3, from E[e z z^T] and E[e^2 z z^T] of all fields."""
    p, a = len(Q), np.asarray(a)
    omega, C = overlap_matrix(M, Q, P), np.diag(output_weights(a, a_star))
    tau = np.trace(C @ omega) + b
    kappa = np.trace(C @ omega @ C @ omega)
    X = omega @ C @ omega
    e_zz = tau * omega + 2 * X
    e2_zz = (tau**2 + 2 * kappa + Delta) * omega + 4 * tau * X + 8 * X @ C @ omega
    dM = 2 * gamma * a[:, None] * e_zz[:p, p:]
    dQ = 2 * gamma * (a[:, None] + a) * e_zz[:p, :p]
    if noise:
        dQ = dQ + 4 * gamma**2 / batch * np.outer(a, a) * e2_zz[:p, :p]
    da = gamma_a * np.diag(e_zz)[:p]
    if spherical:
        dM, dQ = constrain_norms(M, Q, dM, dQ)
    return dM, dQ, da


def sgd_mean_step(M, Q, P, a, a_star, *, dim, gamma, b=0.0, Delta=0.0, batch=1):
    """Exact mean of (M, Q) after one step at finite N (section 3.1).

    |x|^2 enters by the homogeneity rule, two different samples of a batch by E[e lambda_k x].
    """
    p, a = len(Q), np.asarray(a)
    omega, C = overlap_matrix(M, Q, P), np.diag(output_weights(a, a_star))
    tau0 = np.trace(C @ omega)
    X = omega @ C @ omega
    q_zz = tau0 * omega + 2 * X
    q2_zz = (tau0**2 + 2 * np.trace(C @ X)) * omega + 4 * tau0 * X + 8 * X @ C @ omega
    e_zz = q_zz + b * omega
    same = (dim + 6) * q2_zz + 2 * b * (dim + 4) * q_zz + (b**2 + Delta) * (dim + 2) * omega
    e_zx = (tau0 + b) * np.eye(len(omega)) + 2 * omega @ C
    other = e_zx @ omega @ e_zx.T
    second = (same / batch + (1 - 1 / batch) * other)[:p, :p]
    M1 = M + 2 * gamma / dim * a[:, None] * e_zz[:p, p:]
    Q1 = Q + 2 * gamma / dim * (a[:, None] + a) * e_zz[:p, :p]
    return M1, Q1 + 4 * gamma**2 / dim**2 * np.outer(a, a) * second


def drift_derivative(M, Q, P, a, a_star, M1, Q1, **options):
    """Derivative of (dM, dQ) along (M1, Q1), flattened: complex step, the drift is a polynomial."""
    step = 1e-30
    dM, dQ, _ = sgd_drift(M + 1j * step * M1, Q + 1j * step * Q1, P, a, a_star, **options)
    return np.concatenate([dM.imag.ravel(), dQ.imag.ravel()]) / step


def sgd_jacobian(M, Q, P, a, a_star, **options):
    """Jacobian of the drift in (M row-major, Q row-major)."""
    columns = []
    for unit in np.eye(M.size + Q.size):
        M1, Q1 = unit[: M.size].reshape(M.shape), unit[M.size :].reshape(Q.shape)
        columns.append(drift_derivative(M, Q, P, a, a_star, M1, Q1, **options))
    return np.array(columns).T


def increment_covariance(M, Q, P, a, a_star, *, gamma, b=0.0, Delta=0.0):
    """N^2 Cov of the one-step increments of (M, Q), leading order in N, batch 1 (section 9).

    An increment is u e z_i z_j + v e^2 z_i z_j; the moments E[e^j z z z z] come from the tilting.
    """
    p, p_star = M.shape
    norm, cov = tilted_series(M, Q, P, a, a_star, b, Delta, 4)
    pairs = (
        np.einsum("iab,jcd->ijabcd", cov, cov)
        + np.einsum("iac,jbd->ijabcd", cov, cov)
        + np.einsum("iad,jbc->ijabcd", cov, cov)
    )
    four, two = [], []
    for j in range(5):
        splits = [(i, k) for i in range(j + 1) for k in range(j + 1 - i)]
        four.append(math.factorial(j) * sum(norm[j - i - k] * pairs[i, k] for i, k in splits))
        two.append(math.factorial(j) * sum(norm[j - i] * cov[i] for i in range(j + 1)))
    increments = [(k, p + r, 2 * gamma * a[k], 0.0) for k in range(p) for r in range(p_star)]
    increments += [
        (k, m, 2 * gamma * (a[k] + a[m]), 4 * gamma**2 * a[k] * a[m])
        for k in range(p)
        for m in range(p)
    ]
    mean = np.array([u * two[1][i, j] + v * two[2][i, j] for i, j, u, v in increments])
    square = np.array(
        [
            [
                u * s * four[2][i, j, k, m]
                + (u * w + v * s) * four[3][i, j, k, m]
                + v * w * four[4][i, j, k, m]
                for k, m, s, w in increments
            ]
            for i, j, u, v in increments
        ]
    )
    return square - np.outer(mean, mean)


def sgd_fluctuations(M, Q, P, a, a_star, t, *, rtol=1e-8, **options):
    """Sigma = lim N Cov(M, Q) and beta = lim N (mean - ODE) at the times t (section 9), batch 1.

    beta' = J beta + (Sigma : f'') / 2 + g - J f / 2, g the 1/N part of the mean step; the second
    difference along the square-root columns of Sigma is exact because the drift f is cubic.
    """
    size, n = M.size, M.size + Q.size

    def split(state):
        return state[:size].reshape(M.shape), state[size:n].reshape(Q.shape)

    def drift(state):
        return np.concatenate(
            [x.ravel() for x in sgd_drift(*split(state), P, a, a_star, **options)[:2]]
        )

    def rhs(_, state):
        y, beta, Sigma = state[:n], state[n : 2 * n], state[2 * n :].reshape(n, n)
        f, J = drift(y), sgd_jacobian(*split(y), P, a, a_star, **options)
        mean_step = sgd_mean_step(*split(y), P, a, a_star, dim=1, **options)
        g = np.concatenate([x.ravel() for x in mean_step]) - y - f
        values, vectors = np.linalg.eigh((Sigma + Sigma.T) / 2)
        columns = (vectors * np.sqrt(np.maximum(values, 0))).T
        bend = sum(drift(y + v) - 2 * f + drift(y - v) for v in columns)
        dSigma = J @ Sigma + Sigma @ J.T + increment_covariance(*split(y), P, a, a_star, **options)
        return np.concatenate([f, J @ beta + bend / 2 + g - J @ f / 2, dSigma.ravel()])

    start = np.concatenate([M.ravel(), Q.ravel(), np.zeros(n + n * n)])
    states = solve(rhs, start, t, rtol=rtol, atol=rtol * 1e-2)
    return states[:, 2 * n :].reshape(-1, n, n), states[:, n : 2 * n]


def solve(rhs, start, t, *, method="DOP853", rtol=1e-12, atol=1e-14):
    """State at each time of t, integrated from one to the next without interpolation."""
    states, state, now = [], start, 0.0
    for end in t:
        if end > now:
            answer = integrate.solve_ivp(
                rhs, (now, end), state, method=method, rtol=rtol, atol=atol, t_eval=[end]
            )
            state, now = answer.y[:, -1], end
        states.append(state)
    return np.array(states)


def sgd_ode(
    M, Q, P, a, a_star, t, *, activation="quadratic", method="DOP853", rtol=1e-12, **options
):
    """(M, Q, a) at the times t, each with the time axis first; options are those of the drift."""
    cuts = [M.size, M.size + Q.size]

    def rhs(_, state):
        m, q, weights = np.split(state, cuts)
        m, q = m.reshape(M.shape), q.reshape(Q.shape)
        if activation == "quadratic":
            rates = sgd_drift(m, q, P, weights, a_star, **options)
        else:
            rates = committee_drift(activation, m, q, P, weights, a_star, **options)
            rates = (*rates, 0 * weights)
        return np.concatenate([rate.ravel() for rate in rates])

    start = np.concatenate([M.ravel(), Q.ravel(), a])
    states = solve(rhs, start, t, method=method, rtol=rtol, atol=rtol * 1e-2)
    m, q, weights = np.split(states, cuts, axis=1)
    return m.reshape(-1, *M.shape), q.reshape(-1, *Q.shape), weights


# sgd: Gaussian kernels of the three activations (section 10), arguments in the order of the name
# I1 = E[g(u)], I2 = E[g(u) g(v)], I3 = E[g'(u) v g(w)], I4 = E[g'(u) g'(v) g(w) g(z)]
# K1 = E[g'(u) v], K2 = E[g'(u) g'(v)], K3 = E[g'(u) g'(v) g(w)], for the offset and the label noise


def quadratic_I1(c):
    return isserlis(c, [0, 0])


def quadratic_I2(c):
    return isserlis(c, [0, 0, 1, 1])


def quadratic_I3(c):
    return 2 * isserlis(c, [0, 1, 2, 2])


def quadratic_I4(c):
    return 4 * isserlis(c, [0, 1, 2, 2, 3, 3])


def quadratic_K1(c):
    return 2 * isserlis(c, [0, 1])


def quadratic_K2(c):
    return 4 * isserlis(c, [0, 1])


def quadratic_K3(c):
    return 4 * isserlis(c, [0, 1, 2, 2])


def erf_I1(c):
    return 0.0


def erf_I2(c):
    return 2 / math.pi * math.asin(c[0][1] / math.sqrt((1 + c[0][0]) * (1 + c[1][1])))


def erf_I3(c):
    root = math.sqrt((1 + c[0][0]) * (1 + c[2][2]) - c[0][2] ** 2)
    return 2 / math.pi * (c[1][2] * (1 + c[0][0]) - c[0][1] * c[0][2]) / ((1 + c[0][0]) * root)


def erf_I4(c):
    (c11, c12, c13, c14), (_, c22, c23, c24), (_, _, c33, c34), (_, _, _, c44) = c
    d4 = (1 + c11) * (1 + c22) - c12**2
    d0 = d4 * c34 - c23 * c24 * (1 + c11) - c13 * c14 * (1 + c22) + c12 * (c13 * c24 + c14 * c23)
    d1 = d4 * (1 + c33) - c23**2 * (1 + c11) - c13**2 * (1 + c22) + 2 * c12 * c13 * c23
    d2 = d4 * (1 + c44) - c24**2 * (1 + c11) - c14**2 * (1 + c22) + 2 * c12 * c14 * c24
    return 4 / math.pi**2 / math.sqrt(d4) * math.asin(d0 / math.sqrt(d1 * d2))


def erf_K1(c):
    return 0.0


def erf_K2(c):
    return 2 / math.pi / math.sqrt((1 + c[0][0]) * (1 + c[1][1]) - c[0][1] ** 2)


def erf_K3(c):
    return 0.0


def relu_I1(c):
    return math.sqrt(c[0][0] / (2 * math.pi))


def relu_I2(c):
    s = math.sqrt(max(c[0][0] * c[1][1] - c[0][1] ** 2, 0.0))
    return (s + c[0][1] * (math.pi / 2 + math.atan2(c[0][1], s))) / (2 * math.pi)


def relu_I3(c):
    s = math.sqrt(max(c[0][0] * c[2][2] - c[0][2] ** 2, 0.0))
    angle = math.pi / 2 + math.atan2(c[0][2], s)
    return (c[0][1] * s / c[0][0] + c[1][2] * angle) / (2 * math.pi)


def relu_I4(c):
    """One quadrature: 1e-13 absolute for correlations up to 1 - 1e-6, repeated fields included."""
    return positive_moment(c, [2, 3])


def relu_K1(c):
    return c[0][1] / math.sqrt(2 * math.pi * c[0][0])


def relu_K2(c):
    return positive_moment(c, [])


def relu_K3(c):
    return positive_moment(c, [2])


def conditional_arcsine(R, i, j):
    """asin of the correlation of the other two of four components, given that i and j vanish."""
    k, m = sorted({0, 1, 2, 3} - {i, j})

    def given(u, v):
        cross = R[i][u] * R[i][v] + R[j][u] * R[j][v]
        cross -= R[i][j] * (R[i][u] * R[j][v] + R[i][v] * R[j][u])
        return R[u][v] - cross / (1 - R[i][j] ** 2)

    correlation = given(k, m) / math.sqrt(given(k, k) * given(m, m))
    return math.asin(min(max(correlation, -1.0), 1.0))


def orthant_probability(R):
    """P(all > 0) for at most four components: arcsines, and for four Plackett's integral as well.

    The integral runs along the correlation matrices (1 - t) I + t R; its part for the pair (i, j)
    is taken in the angle asin(t R_ij).
    """
    d = len(R)
    pairs = list(itertools.combinations(range(d), 2))
    elementary = (1 + 2 / math.pi * sum(math.asin(R[i][j]) for i, j in pairs)) / 2**d
    if d < 4:
        return elementary

    def integrand(x, i, j, arc):
        t = math.sin(x * arc) / R[i][j]
        tilted = [[t * R[u][v] if u != v else 1.0 for v in range(4)] for u in range(4)]
        return arc * conditional_arcsine(tilted, i, j)

    total = 0.0
    for i, j in pairs:
        if R[i][j]:
            arc = math.asin(R[i][j])
            total += integrate.quad(integrand, 0, 1, (i, j, arc), epsabs=1e-13, epsrel=1e-12)[0]
    return elementary + total / (4 * math.pi**2)


def truncated_moment(cov, factors):
    """E[prod_i x_i 1(all x > 0)] for at most two factors, by Stein's lemma down to orthants."""
    d = len(cov)
    if not factors:
        s = np.sqrt(np.diag(cov))
        return orthant_probability(np.clip(cov / np.outer(s, s), -1, 1).tolist())
    first, *rest = factors
    total = cov[first, rest[0]] * truncated_moment(cov, []) if rest else 0.0
    for k in set(range(d)) - set(rest):
        keep = [i for i in range(d) if i != k]
        given = (cov - np.outer(cov[k], cov[k]) / cov[k, k])[np.ix_(keep, keep)]
        density = 1 / math.sqrt(2 * math.pi * cov[k, k])
        total += cov[first, k] * density * truncated_moment(given, [keep.index(i) for i in rest])
    return total


def positive_moment(c, factors):
    """E[prod_i x_i 1(all x > 0)] where components may be positive multiples of each other."""
    s = np.sqrt(np.diag(c))
    R = np.asarray(c) / np.outer(s, s)
    if np.min(R) < -1 + 1e-12:
        return 0.0
    same = [int(np.argmax(row > 1 - 1e-12)) for row in R]
    distinct = sorted(set(same))
    moment = truncated_moment(
        R[np.ix_(distinct, distinct)], [distinct.index(same[i]) for i in factors]
    )
    return math.prod(s[i] for i in factors) * moment


def kernel(activation, name, cov, *fields):
    """One of the kernels above at the given fields, which may repeat."""
    return globals()[f"{activation}_{name}"](cov[np.ix_(fields, fields)])


def committee_risk(activation, M, Q, P, a, a_star, b=0.0):
    """R = c^T I2 c / 2 + b c^T I1 + b^2 / 2, c = (-a, a*)."""
    cov, c = overlap_matrix(M, Q, P), output_weights(a, a_star)
    n = range(len(c))
    I2 = [[kernel(activation, "I2", cov, i, j) for j in n] for i in n]
    I1 = [kernel(activation, "I1", cov, i) for i in n]
    return c @ I2 @ c / 2 + b * c @ I1 + b**2 / 2


def committee_drift(
    activation,
    M,
    Q,
    P,
    a,
    a_star,
    *,
    gamma,
    b=0.0,
    Delta=0.0,
    batch=1,
    noise=True,
    spherical=False,
):
    """(dM, dQ) per unit alpha of section 10, summed over every index."""
    cov, c = overlap_matrix(M, Q, P), output_weights(a, a_star)
    p, n = len(Q), len(c)

    def slope_moment(k, v):
        terms = sum(c[i] * kernel(activation, "I3", cov, k, v, i) for i in range(n))
        return terms + b * kernel(activation, "K1", cov, k, v)

    def noise_moment(k, m):
        total = (b**2 + Delta) * kernel(activation, "K2", cov, k, m)
        for i in range(n):
            total += 2 * b * c[i] * kernel(activation, "K3", cov, k, m, i)
            for j in range(n):
                total += c[i] * c[j] * kernel(activation, "I4", cov, k, m, i, j)
        return total

    F = np.array([[gamma * a[k] * slope_moment(k, v) for v in range(n)] for k in range(p)])
    dM, dQ = F[:, p:], F[:, :p] + F[:, :p].T
    if noise:
        square = np.array([[noise_moment(k, m) for m in range(p)] for k in range(p)])
        dQ = dQ + gamma**2 / batch * np.outer(a, a) * square
    return constrain_norms(M, Q, dM, dQ) if spherical else (dM, dQ)


# sgd: the finite network and its exact-in-law overlap chain (sections 1 and 8)


ACTIVATIONS = {
    "quadratic": (np.square, lambda u: 2 * u),
    "erf": (
        lambda u: special.erf(u / math.sqrt(2)),
        lambda u: math.sqrt(2 / math.pi) * np.exp(-(u**2) / 2),
    ),
    "relu": (lambda u: np.maximum(u, 0), lambda u: (u > 0).astype(float)),
}


def weights_from_overlaps(M, Q, P, dim):
    """W (p, dim) and W* (p*, dim) with exactly these overlaps; dim >= p + p*."""
    values, vectors = np.linalg.eigh(overlap_matrix(M, Q, P))
    root = vectors * np.sqrt(dim * np.maximum(values, 0))
    rows = np.hstack([root, np.zeros((len(root), dim - len(root)))])
    return rows[: len(Q)], rows[len(Q) :]


def overlaps_from_weights(W, W_star):
    """(M, Q, P)."""
    dim = W.shape[1]
    return W @ W_star.T / dim, W @ W.T / dim, W_star @ W_star.T / dim


def direct_sgd_step(
    W,
    W_star,
    a,
    a_star,
    x,
    xi,
    *,
    gamma,
    b=0.0,
    Delta=0.0,
    activation="quadratic",
    norms=None,
    gamma_a=0.0,
):
    """(W, a) after one step on the batch x (B, N), xi (B,); norms: Q_kk to restore (spherical)."""
    g, slope = ACTIVATIONS[activation]
    batch, dim = x.shape
    fields, fields_star = x @ W.T / math.sqrt(dim), x @ W_star.T / math.sqrt(dim)
    e = g(fields_star) @ a_star + math.sqrt(Delta) * xi - g(fields) @ a + b
    W1 = W + gamma / batch * (e[:, None] * a * slope(fields)).T @ x / math.sqrt(dim)
    a1 = a + gamma_a / (dim * batch) * e @ g(fields)
    if norms is not None:
        W1 = W1 * np.sqrt(norms / np.mean(W1**2, axis=1))[:, None]
    return W1, a1


def repeat(advance, observe, state, steps):
    """What is observed after each of the increasing numbers of steps, times first."""
    record, done = [], 0
    for step in steps:
        for _ in range(step - done):
            state = advance(*state)
        done = step
        record.append(observe(*state))
    return tuple(np.array(column) for column in zip(*record, strict=True))


def direct_sgd(rng, W, W_star, a, a_star, steps, *, batch=1, spherical=False, **options):
    """(M, Q, a) after each of the increasing numbers of steps, times first."""
    norms = np.mean(W**2, axis=1) if spherical else None

    def advance(W, a):
        x, xi = rng.standard_normal((batch, W.shape[1])), rng.standard_normal(batch)
        return direct_sgd_step(W, W_star, a, a_star, x, xi, norms=norms, **options)

    def observe(W, a):
        return (*overlaps_from_weights(W, W_star)[:2], a)

    return repeat(advance, observe, (W, a), steps)


def semidefinite_cholesky(A):
    """Lower L with L L^T = A >= 0; a pivot below 1e-15 of the largest makes a zero column."""
    A, L = np.array(A, float), np.zeros(np.shape(A))
    floor = 1e-15 * np.max(np.diag(A))
    for j in range(len(A)):
        if A[j, j] > floor:
            L[j:, j] = A[j:, j] / math.sqrt(A[j, j])
            A -= np.outer(L[:, j], L[:, j])
    return L


def wishart_factor(rng, p, degrees):
    """T (p, .) with T T^T ~ Wishart_p(degrees): Bartlett, or plain normals when degrees < p."""
    if degrees < p:
        return rng.standard_normal((p, degrees))
    T = np.tril(rng.standard_normal((p, p)), -1)
    return T + np.diag([math.sqrt(rng.chisquare(degrees - j)) for j in range(p)])


def chain_start(M, Q, P):
    """State (Bm, Qperp) of the chain and its constant L*, the eigenvalue square root of P."""
    values, vectors = np.linalg.eigh(P)
    Lstar = vectors * np.sqrt(np.maximum(values, 0))
    Bm = M @ np.linalg.pinv(Lstar).T
    return Bm, Q - Bm @ Bm.T, Lstar


def chain_step(
    rng,
    Bm,
    Qperp,
    Lstar,
    a,
    a_star,
    *,
    dim,
    gamma,
    b=0.0,
    Delta=0.0,
    batch=1,
    activation="quadratic",
    norms=None,
    gamma_a=0.0,
):
    """(Bm, Qperp, a) after one step of the overlap chain; M = Bm L*^T, Q = Qperp + Bm Bm^T."""
    g, slope = ACTIVATIONS[activation]
    p, p_star = Bm.shape
    L = semidefinite_cholesky(Qperp)
    x_star, x = rng.standard_normal((batch, p_star)), rng.standard_normal((batch, p))
    fields, fields_star = x_star @ Bm.T + x @ L.T, x_star @ Lstar.T
    e = g(fields_star) @ a_star + math.sqrt(Delta) * rng.standard_normal(batch) - g(fields) @ a + b
    c = gamma / (batch * dim) * e[:, None] * a * slope(fields)
    outside = semidefinite_cholesky(c.T @ c) @ wishart_factor(rng, p, dim - p - p_star)
    inside = L + c.T @ x
    Bm1, Qperp1 = Bm + c.T @ x_star, inside @ inside.T + outside @ outside.T
    a1 = a + gamma_a / (dim * batch) * e @ g(fields)
    if norms is not None:
        d = np.sqrt(norms / (np.sum(Bm1**2, axis=1) + np.diag(Qperp1)))
        Bm1, Qperp1 = d[:, None] * Bm1, np.outer(d, d) * Qperp1
    return Bm1, Qperp1, a1


def chain(rng, M, Q, P, a, a_star, steps, *, spherical=False, **options):
    """(M, Q, a) after each of the increasing numbers of steps, times first."""
    norms = np.diag(Q) if spherical else None
    Bm, Qperp, Lstar = chain_start(M, Q, P)

    def advance(Bm, Qperp, a):
        return chain_step(rng, Bm, Qperp, Lstar, a, a_star, norms=norms, **options)

    def observe(Bm, Qperp, a):
        return Bm @ Lstar.T, Qperp + Bm @ Bm.T, a

    return repeat(advance, observe, (Bm, Qperp, a), steps)


# sgd: landscape, plateau, stability (sections 4 and 5); a and a* are uniform vectors


def global_minimum(P, a, a_star, p, b=0.0, *, starts=4, seed=0):
    """Smallest risk of p students: BFGS from random weights in the teacher's span and p more."""
    p_star = len(P)
    _, W_star = weights_from_overlaps(np.zeros((p, p_star)), np.zeros((p, p)), P, p + p_star)
    rng = np.random.default_rng(seed)

    def risk(w):
        return sgd_risk(*overlaps_from_weights(w.reshape(p, -1), W_star), a, a_star, b)

    runs = [
        optimize.minimize(risk, rng.standard_normal(W_star.shape[1] * p), options={"gtol": 1e-9})
        for _ in range(starts)
    ]
    return min(run.fun for run in runs)


def plateau(P, a, a_star, *, b=0.0, Delta=0.0, **options):
    """(q, risk, escape rates decreasing) of the plateau M = 0, Q = q I; NaN where there is none.

    q is the stable root of the drift of q, the rates are the eigenvalues of its linearisation in M.
    """
    p, p_star = len(a), len(P)
    M = np.zeros((p, p_star))

    def relative_growth(q):
        dQ = sgd_drift(M, q * np.eye(p), P, a, a_star, b=b, Delta=Delta, **options)[1]
        return dQ[0, 0] / q

    scale = sgd_risk(M, np.zeros((p, p)), P, a, a_star, b) + Delta
    top = 100 * (1 + scale) / a[0]
    lowest = optimize.minimize_scalar(relative_growth, bounds=(0, top), method="bounded").x
    if relative_growth(lowest) > 0:
        return math.nan, math.nan, np.full(p_star, math.nan)
    q = optimize.brentq(relative_growth, 1e-12, lowest, xtol=1e-15, rtol=1e-15)
    Q, rates = q * np.eye(p), np.empty((p_star, p_star))
    for r in range(p_star):
        M1 = np.zeros((p, p_star))
        M1[0, r] = 1.0
        derivative = drift_derivative(M, Q, P, a, a_star, M1, 0 * Q, b=b, Delta=Delta, **options)
        rates[r] = derivative[:p_star]
    return q, sgd_risk(M, Q, P, a, a_star, b), np.sort(np.linalg.eigvals(rates).real)[::-1]


def plateau_lr_max(P, a, a_star, **options):
    """Largest gamma with a plateau, by bisection."""
    return bisect(lambda gamma: np.isfinite(plateau(P, a, a_star, gamma=gamma, **options)[0]))


def bisect(holds, *, rtol=1e-12):
    """Largest positive number at which a property that holds below it holds."""
    low, high = 0.0, 1e-3
    while holds(high):
        low, high = high, 2 * high
    while high - low > rtol * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def solution(P, a, a_star):
    """(M, Q) of zero loss with W = sqrt(a*/a) (W*, 0): uniform a and a*, p >= p*."""
    p, p_star = len(a), len(P)
    scale = math.sqrt(a_star[0] / a[0])
    embed = np.eye(p, p_star)
    return scale * embed @ P, scale**2 * embed @ P @ embed.T


def lr_max(P, a, a_star, *, tolerance=1e-11, **options):
    """Largest gamma at which no eigenvalue of the drift's Jacobian at the solution is positive."""
    M, Q = solution(P, a, a_star)
    directions = [(unit.reshape(M.shape), 0 * Q) for unit in np.eye(M.size)]
    upper = np.triu_indices(len(Q))
    for k, m in zip(*upper, strict=True):
        Q1 = np.zeros_like(Q)
        Q1[k, m] = Q1[m, k] = 1.0
        directions.append((0 * M, Q1))
    rows = np.r_[np.arange(M.size), M.size + np.ravel_multi_index(upper, Q.shape)]

    def stable(gamma):
        columns = [
            drift_derivative(M, Q, P, a, a_star, M1, Q1, gamma=gamma, **options)[rows]
            for M1, Q1 in directions
        ]
        return np.max(np.linalg.eigvals(np.array(columns).T).real) < tolerance

    return bisect(stable)


def misadjustment(sigma, eta, batch=1):
    """Rmis of section 5: infinite where a single direction is unstable."""
    sigma = np.asarray(sigma)
    if 4 * eta * np.max(sigma) >= batch:
        return math.inf
    return np.sum(2 * eta * sigma / (batch - 4 * eta * sigma))


def noise_floor(P, a, a_star, *, t, **options):
    """Risk at the long time t of the ODE started at zero loss."""
    M, Q, _ = sgd_ode(*solution(P, a, a_star), P, a, a_star, [t], **options)
    return sgd_risk(M[0], Q[0], P, a, a_star)


def late_time_constant(sigma, p, eta, batch=1):
    """lim R alpha^2 for p > p* (section 5)."""
    p_star = len(sigma)
    constant = (p - p_star) * (p_star + 2) / (64 * eta**2 * (p + 2))
    return constant / (1 - misadjustment(sigma, eta, batch))


def escape_time(M, Q, P, a, a_star, *, gamma, drop):
    """Time at which the linear regime of section 4 has lowered the plateau's risk by drop.

    Gradient flow with P = rho I: M(alpha) = Q_plateau^{1/2} Q0^{-1/2} M0 exp(4 eta A* P alpha).
    """
    q, risk, _ = plateau(P, a, a_star, gamma=gamma, noise=False)
    seed = math.sqrt(q) * np.linalg.inv(linalg.sqrtm(Q)).real @ M

    def lowered(alpha):
        grown = seed @ linalg.expm(4 * gamma * a[0] * a_star[0] * P * alpha)
        return risk - sgd_risk(grown, q * np.eye(len(Q)), P, a, a_star) - drop

    low, high = -1.0, 1.0
    while lowered(low) > 0:
        low *= 2
    while lowered(high) < 0:
        high *= 2
    return optimize.brentq(lowered, low, high, xtol=1e-13, rtol=1e-13)


def seed_ratio(p, p_star, q0, rho, a, a_star, *, gamma, Delta=0.0):
    """Variance of M from SGD noise over that of the random start (section 4); a, a* scalars.

    The integral of 4 eta^2 m8 exp(-2 int r) / (q0 rho) along the learning of q from q0, with
    M = 0, Q = q I, P = rho I and m8 = E[e^2 lambda_k^2 lambda*_r^2].
    """
    M, P, eta = np.zeros((p, p_star)), rho * np.eye(p_star), gamma * a
    weights, weights_star = np.full(p, a), np.full(p_star, a_star)
    M1 = np.zeros((p, p_star))
    M1[0, 0] = 1.0

    def rhs(_, state):
        q, exponent, _ = state
        Q = q * np.eye(p)
        options = {"gamma": gamma, "Delta": Delta}
        dq = sgd_drift(M, Q, P, weights, weights_star, **options)[1][0, 0]
        r = drift_derivative(M, Q, P, weights, weights_star, M1, 0 * Q, **options)[0]
        m8 = tilted_moment(M, Q, P, weights, weights_star, 0.0, Delta, 2, [0, 0, p, p])
        return [dq, 2 * r, 4 * eta**2 * m8 * math.exp(-exponent) / (q0 * rho)]

    plateau_rate = plateau(P, weights, weights_star, gamma=gamma, Delta=Delta)[2][0]
    return solve(rhs, [q0, 0.0, 0.0], [20 / plateau_rate], rtol=1e-10)[0, 2]


# sgd: symmetry and selected solution (section 6); a is uniform


def conserved_J(M, Q, P, a, a_star, gamma, t):
    """J = E^T M^T Qperp^{-1} M E, E = exp(-4 eta t A* P)."""
    E = linalg.expm(-4 * gamma * a[0] * t * np.diag(a_star) @ P)
    Qperp = Q - M @ np.linalg.inv(P) @ M.T
    return E.T @ M.T @ np.linalg.inv(Qperp) @ M @ E


def principal_angles(M, Q, P):
    """Angles between the row spaces of explicit W and W*, ascending."""
    W, W_star = weights_from_overlaps(M, Q, P, len(Q) + len(P))
    return np.sort(linalg.subspace_angles(W.T, W_star.T))


def selected_rotation(M, Q, P):
    """O of section 6.6: Gram-Schmidt of Q0^{-1/2} M0 V, polar in equal eigenvalues, times V^T."""
    values, V = np.linalg.eigh(P)
    values, V = values[::-1], V[:, ::-1]
    Z = np.linalg.inv(linalg.sqrtm(Q)).real @ M @ V
    learned, start = np.zeros((len(Q), 0)), 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[start] - values[end] > 1e-9 * values[0]:
            block = Z[:, start:end] - learned @ learned.T @ Z[:, start:end]
            learned, start = np.hstack([learned, linalg.polar(block)[0]]), end
    return learned @ V.T
