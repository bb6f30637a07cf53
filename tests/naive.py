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


# population_flow: loss and observables (section 1), canonical variables
# The teacher is diag(mu) with one entry per row of W, kappa the trace weight and lam the ridge.


def flow_error(W, mu):
    """A = S - S*, for one W or a stack of them."""
    return W @ np.swapaxes(W, -1, -2) - np.diag(mu)


def flow_loss(W, mu, *, kappa=0.5, lam=0.0):
    """Canonical loss with the ridge term (section 1.2)."""
    A = flow_error(W, mu)
    return np.sum(A**2) + kappa * np.trace(A) ** 2 + 2 * lam * np.trace(W @ W.T)


def flow_force(W, mu, kappa, lam):
    """G = A + s I: the gradient of the loss is 4 G W (section 1.2)."""
    A = flow_error(W, mu)
    return A + (kappa * np.trace(A) + lam) * np.eye(len(mu))


def flow_gradient(W, mu, *, kappa=0.5, lam=0.0):
    return 4 * flow_force(W, mu, kappa, lam) @ W


def flow_hessian_action(W, mu, D, *, kappa=0.5, lam=0.0):
    """Derivative of the gradient along D: the product rule on 4 G W (section 3.2)."""
    dS = D @ W.T + W @ D.T
    dG = dS + kappa * np.trace(dS) * np.eye(len(mu))
    return 4 * (dG @ W + flow_force(W, mu, kappa, lam) @ D)


def flow_hessian(W, mu, *, kappa=0.5, lam=0.0):
    """Dense Hessian, one unit direction at a time, entries of W in column-major order."""
    columns = []
    for unit in np.eye(W.size):
        D = unit.reshape(W.shape, order="F")
        action = flow_hessian_action(W, mu, D, kappa=kappa, lam=lam)
        columns.append(action.ravel(order="F"))
    return np.array(columns).T


def matrix_observables(S, mu, *, kappa=0.5, lam=0.0):
    """loss (without ridge), distance2, trace, overlap and shift of S (..., d, d), as a dict."""
    A = S - np.diag(mu)
    error = np.trace(A, axis1=-2, axis2=-1)
    distance2 = np.sum(A**2, axis=(-2, -1))
    return {
        "loss": distance2 + kappa * error**2,
        "distance2": distance2,
        "trace": np.trace(S, axis1=-2, axis2=-1),
        "overlap": np.sum(np.diagonal(S, axis1=-2, axis2=-1) * mu, axis=-1),
        "shift": kappa * error + lam,
    }


def flow_observables(W, mu, *, kappa=0.5, lam=0.0):
    """The observables of W (..., d, m)."""
    return matrix_observables(W @ np.swapaxes(W, -1, -2), mu, kappa=kappa, lam=lam)


# population_flow: trajectories at finite d (sections 1 and 2)


def flow_ode(W0, mu, t, *, kappa=0.5, lam=0.0, method="DOP853", rtol=1e-12):
    """(W, integral of the shift) at the times t: equation (1) as it stands."""

    def rhs(_, state):
        W = state[:-1].reshape(W0.shape)
        shift = kappa * (np.sum(W**2) - np.sum(mu)) + lam
        return np.append(-(flow_force(W, mu, kappa, lam) @ W).ravel(), shift)

    start = np.append(W0.ravel(), 0.0)
    states = solve(rhs, start, t, method=method, rtol=rtol, atol=rtol * 1e-2)
    return states[:, :-1].reshape(-1, *W0.shape), states[:, -1]


def flow_trajectory(W0, mu, t, *, kappa=0.5, lam=0.0, **numerics):
    """The observables along the flow, with shift_integral."""
    W, integral = flow_ode(W0, mu, t, kappa=kappa, lam=lam, **numerics)
    return {**flow_observables(W, mu, kappa=kappa, lam=lam), "shift_integral": integral}


def flow_kappa0(W0, mu, t, lam=0.0):
    """S at the times t for kappa = 0: equation (3) with its inverse, for small exponents only."""
    result = []
    for tau in t:
        rate = mu - lam
        k = [math.expm1(2 * r * tau) / (2 * r) if r else tau for r in rate]
        M = np.eye(W0.shape[1]) + 2 * W0.T @ np.diag(k) @ W0
        grown = np.exp(rate * tau)[:, None] * W0
        result.append(grown @ np.linalg.inv(M) @ grown.T)
    return np.array(result)


def flow_log_determinant(W0, mu, t, shift_integral):
    """log det M of section 2.1 at each time, from sigma(u) at the increasing times t.

    t starts at 0 and is the fine grid on which k is integrated by Simpson's rule.
    """
    growth = np.exp(2 * (np.outer(t, mu) - np.asarray(shift_integral)[:, None]))
    k = integrate.cumulative_simpson(growth, x=t, axis=0, initial=0)
    return np.array(
        [np.linalg.slogdet(np.eye(W0.shape[1]) + 2 * (W0.T * row) @ W0)[1] for row in k]
    )


def orthonormal_network(cosines2, teacher_width, scale=1.0):
    """(W0, mu) of a small network with the given squared cosines: S0 = scale P0, S* = P*.

    Each column lies in its own plane of a teacher direction and an orthogonal one, or along the
    orthogonal one for c = 0. The teacher directions left over see no column.
    """
    m = len(cosines2)
    W0 = np.zeros((teacher_width + m, m))
    teacher = iter(range(teacher_width))
    for j, c in enumerate(cosines2):
        if c > 0:
            W0[next(teacher), j] = math.sqrt(scale * c)
        W0[teacher_width + j, j] = math.sqrt(scale * (1 - c))
    return W0, np.repeat([1.0, 0.0], [teacher_width, m])


def orthonormal_flow(cosines2, t, *, teacher_width, scale=1.0, **options):
    """The observables of section 2.5, from the matrix flow of the small network."""
    return flow_trajectory(*orthonormal_network(cosines2, teacher_width, scale), t, **options)


def flow_escape_time(cosines2, *, teacher_width, scale=1.0, kappa=0.5, level=0.5):
    """Time at which tr(S S*)/m* reaches the level (sections 2.5 and 3.5)."""

    def excess(tau):
        run = orthonormal_flow(
            cosines2, [tau], teacher_width=teacher_width, scale=scale, kappa=kappa
        )
        return run["overlap"][0] / teacher_width - level

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return optimize.brentq(excess, 0.0, high, xtol=1e-10)


def angle_flow(cosines2, weights, teacher, t, *, scale, kappa=None, lam=0.0, rtol=1e-12):
    """The flow of one column per angle, (u, v) in its teacher and its orthogonal direction.

    Every sum over columns has the given weights and teacher is the weighted trace of S*. With
    kappa=None the trace is held at its start: the shift is then its Lagrange multiplier
    (section 4). Returns the observables and the eigenvalues (T, columns) of S.
    """
    c, size = np.asarray(cosines2), len(cosines2)

    def moments(state):
        u2, v2 = state[..., :size] ** 2, state[..., size : 2 * size] ** 2
        return u2, v2, u2 @ weights, (u2 + v2) @ weights, (u2 + v2) ** 2 @ weights

    def shift(overlap, trace, square):
        if kappa is None:
            return (overlap - square) / trace
        return kappa * (trace - teacher) + lam

    def rhs(_, state):
        u2, v2, *sums = moments(state)
        s = shift(*sums)
        growth = -s - (u2 + v2)
        return np.concatenate([(1 + growth) * state[:size], growth * state[size : 2 * size], [s]])

    start = np.concatenate([np.sqrt(scale * c), np.sqrt(scale * (1 - c)), [0.0]])
    states = solve(rhs, start, t, rtol=rtol, atol=1e-14)
    u2, v2, *sums = moments(states)
    met = c > 0
    blocks = np.where(met, (1 - u2) ** 2 + 2 * u2 * v2 + v2**2, v2**2)
    distance2 = blocks @ weights + teacher - weights @ met
    return {
        "loss": distance2 + (0.0 if kappa is None else kappa * (sums[1] - teacher) ** 2),
        "distance2": distance2,
        "trace": sums[1],
        "overlap": sums[0],
        "shift": shift(*sums),
        "shift_integral": states[:, -1],
        "eigenvalues": u2 + v2,
    }


def signed_flow(W_plus, W_minus, mu, t, *, kappa=0.5):
    """(W+, W-) at the times t of the network with second layer +1 and -1 (section 1.5)."""
    size = W_plus.size

    def split(state):
        return state[..., :size].reshape(-1, *W_plus.shape), state[..., size:].reshape(
            -1, *W_minus.shape
        )

    def rhs(_, state):
        (plus,), (minus,) = split(state)
        A = plus @ plus.T - minus @ minus.T - np.diag(mu)
        G = A + kappa * np.trace(A) * np.eye(len(mu))
        return np.concatenate([-(G @ plus).ravel(), (G @ minus).ravel()])

    return split(solve(rhs, np.concatenate([W_plus.ravel(), W_minus.ravel()]), t))


def flow_descend(W0, mu, steps, *, lr, kappa=0.5, lam=0.0):
    """W after each of the given numbers of gradient steps; k steps are the time 4 lr k."""
    W, done, result = W0, 0, []
    for end in steps:
        for _ in range(end - done):
            W = W - lr * flow_gradient(W, mu, kappa=kappa, lam=lam)
        done = end
        result.append(W)
    return np.array(result)


# population_flow: critical points and convergence (section 3)


def flow_critical_point(mu, selected, m, *, kappa=0.5, lam=0.0):
    """(s, W) with S = sum over the selected i of (mu_i - s) v_i v_i^T; s solves its definition."""
    chosen = mu[selected]

    def excess(s):
        return kappa * (np.sum(chosen - s) - np.sum(mu)) + lam - s

    reach = 1 + lam + (1 + kappa) * np.sum(np.abs(mu))
    s = optimize.brentq(excess, -reach, reach, xtol=1e-16, rtol=1e-15)
    W = np.zeros((len(mu), m))
    W[selected, np.arange(len(selected))] = np.sqrt(chosen - s)
    return s, W


def flow_hessian_spectrum(W, mu, *, kappa=0.5, lam=0.0):
    return np.linalg.eigvalsh(flow_hessian(W, mu, kappa=kappa, lam=lam))


def flow_minimum(mu, m, *, kappa=0.5, lam=0.0):
    """(s, W) of a global minimum: S = (mu_i - s)_+ on the min(m, d) largest mu (section 3.4)."""
    top = np.argsort(-mu, kind="stable")[: min(m, len(mu))]

    def excess(s):
        return kappa * (np.sum(np.maximum(mu[top] - s, 0)) - np.sum(mu)) + lam - s

    reach = 1 + lam + (1 + kappa) * np.sum(mu)
    s = optimize.brentq(excess, -reach, reach, xtol=1e-16, rtol=1e-15)
    values = mu[top] - s
    selected = top[values > 1e-13 * reach]
    return flow_critical_point(mu, selected, m, kappa=kappa, lam=lam)


def flow_asymptotics(mu, m, *, kappa=0.5, lam=0.0):
    """Long-time law of the loss without ridge: dict of exponent, rate, constant and residual.

    A mode of Hessian eigenvalue h decays as exp(-h tau/4). It enters the loss squared, or linearly
    where the ridge leaves the loss a slope along it. Flat directions that are no symmetry exist for
    lam = 0 and min(m, d) > rank S*: there a surplus eigenvalue x drags s and the others along,
    s = kappa (surplus x - rank s), and obeys x' = -2 (s + x) x.
    """
    surplus, rank = min(m, len(mu)) - np.count_nonzero(mu), np.count_nonzero(mu)
    _, W = flow_minimum(mu, m, kappa=kappa, lam=lam)
    residual = flow_observables(W, mu, kappa=kappa)["loss"]
    answer = {"exponent": math.nan, "rate": math.nan, "constant": math.nan, "residual": residual}
    if lam == 0 and surplus > 0:
        s_over_x = kappa * surplus / (1 + kappa * rank)
        x = 1 / (2 * (1 + s_over_x))
        s, trace = s_over_x * x, surplus * x - rank * s_over_x * x
        constant = surplus * x**2 + rank * s**2 + kappa * trace**2
        return {**answer, "exponent": -2.0, "constant": constant, "residual": 0.0}
    values, modes = np.linalg.eigh(flow_hessian(W, mu, kappa=kappa, lam=lam))
    slope = modes.T @ flow_gradient(W, mu, kappa=kappa).ravel(order="F")
    decays = values > 1e-9 * values[-1]
    linear = np.abs(slope) > 1e-9 * values[-1]
    return {**answer, "rate": np.min(np.where(linear, values / 4, values / 2)[decays])}


# population_flow: laws (section 4); a law is a pair of nodes and weights, atoms included


def jacobi_edges(gamma, gamma_star):
    middle = gamma + gamma_star - 2 * gamma * gamma_star
    root = 2 * math.sqrt(gamma * gamma_star * (1 - gamma) * (1 - gamma_star))
    return (gamma - gamma_star) ** 2 / (middle + root), middle + root


def jacobi_atoms(gamma, gamma_star):
    """Masses at 0 and at 1 of the squared cosines per student direction."""
    return max(0.0, 1 - gamma_star / gamma), max(0.0, gamma + gamma_star - 1) / gamma


def jacobi_density(x, gamma, gamma_star):
    low, high = jacobi_edges(gamma, gamma_star)
    return math.sqrt(max((high - x) * (x - low), 0.0)) / (2 * math.pi * gamma * x * (1 - x))


def jacobi_mean(f, gamma, gamma_star):
    """Mean of f over the squared cosines per student direction, by quadrature on the density."""
    low, high = jacobi_edges(gamma, gamma_star)
    at_zero, at_one = jacobi_atoms(gamma, gamma_star)

    def integrand(angle):
        x = low + (high - low) * math.sin(angle / 2) ** 2
        return f(x) * jacobi_density(x, gamma, gamma_star) * (high - low) * math.sin(angle) / 2

    smooth = integrate.quad(integrand, 0, math.pi, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
    return smooth + at_zero * f(0.0) + at_one * f(1.0)


def jacobi_logdet(z, gamma, gamma_star):
    """(1/d) log det(I + z P0 P* P0) by quadrature."""
    return gamma * jacobi_mean(lambda x: math.log1p(z * x), gamma, gamma_star)


def jacobi_logdet_slope(z, gamma, gamma_star):
    """Derivative in z of the log-determinant: -y/z of section 4.1, without 0/0 at z = 0."""
    linear = 1 + z * (gamma + gamma_star)
    root = math.sqrt(linear**2 - 4 * (1 + z) * z * gamma * gamma_star)
    return 2 * gamma * gamma_star / (linear + root)


def jacobi_nodes(gamma, gamma_star, n=1000, reach=45.0):
    """Nodes and weights per student direction, dense near both edges, atoms last."""
    low, high = jacobi_edges(gamma, gamma_star)
    w, step = np.linspace(-reach, reach, n, retstep=True)
    angle = math.pi * special.expit(w)
    slope = angle * special.expit(-w) * step
    sine, cosine = np.sin(angle / 2), np.sin(math.pi * special.expit(-w) / 2)
    x, rest = low + (high - low) * sine**2, 1 - high + (high - low) * cosine**2
    weight = ((high - low) * sine * cosine) ** 2 / (2 * math.pi * gamma * x * rest) * slope
    at_zero, at_one = jacobi_atoms(gamma, gamma_star)
    return np.append(np.minimum(x, 1.0), [0.0, 1.0]), np.append(weight, [at_zero, at_one])


def marchenko_pastur_edges(ratio, scale=1.0):
    return scale * (1 - 1 / math.sqrt(ratio)) ** 2, scale * (1 + 1 / math.sqrt(ratio)) ** 2


def marchenko_pastur_density(x, ratio, scale=1.0):
    """Continuous part, mass min(1, ratio), of the law of (scale/m) G G^T, G of shape (d, m).

    The ratio is m/d, the mean is the scale.
    """
    low, high = marchenko_pastur_edges(ratio, scale)
    return ratio * math.sqrt(max((high - x) * (x - low), 0.0)) / (2 * math.pi * scale * x)


def marchenko_pastur_nodes(ratio, scale=1.0, n=96):
    """Nodes and weights, the atom at zero last."""
    low, high = marchenko_pastur_edges(ratio, scale)
    angle = (np.arange(n) + 0.5) * math.pi / n
    x = low + (high - low) * np.sin(angle / 2) ** 2
    slope = (high - low) * np.sin(angle) / 2 * math.pi / n
    weight = [marchenko_pastur_density(node, ratio, scale) for node in x] * slope
    return np.append(x, 0.0), np.append(weight, max(0.0, 1 - ratio))


def projector_law(fraction, value=1.0):
    """Law of value times a projector of the given relative rank."""
    return np.array([value, 0.0]), np.array([fraction, 1 - fraction])


# population_flow: the high-dimensional limit (section 4), everything per dimension


def orthonormal_limit(gamma, gamma_star, t, *, nodes=1000, rtol=1e-11):
    """Section 4.1 from its definition: angle_flow on the nodes of the law, the trace held fixed."""
    c, weights = jacobi_nodes(gamma, gamma_star, nodes)
    return angle_flow(c, gamma * weights, gamma_star, t, scale=gamma_star / gamma, rtol=rtol)


def orthonormal_limit_closed(gamma, gamma_star, t):
    """(eps, k0, k1) at the times t > 0 of the closed dynamics of section 4.1.

    eps = exp(-2 sigma) is what keeps (gamma log u + J(z))/2 = gamma* tau, for
    u = 1 + 2 s0 k0, z = 2 s0 (k1 - k0)/u, k0' = eps, k1' = exp(2 tau) eps.
    """
    s0 = gamma_star / gamma

    def factor(tau, state):
        k0, k1 = state
        u = 1 + 2 * s0 * k0
        z = 2 * s0 * (k1 - k0) / u
        slope = jacobi_logdet_slope(z, gamma, gamma_star)
        per_eps = 2 * s0 / u * (gamma + slope * (math.exp(2 * tau) - 1 - z))
        return 2 * gamma_star / per_eps

    def rhs(tau, state):
        eps = factor(tau, state)
        return [eps, math.exp(2 * tau) * eps]

    states, previous, now = [], np.zeros(2), 0.0
    for end in t:
        run = integrate.solve_ivp(rhs, (now, end), previous, "DOP853", rtol=1e-12, atol=1e-14)
        previous, now = run.y[:, -1], end
        states.append([factor(end, previous), *previous])
    return np.array(states).T


def free_determinant_b(law, teacher_weights, decay, kap):
    """b of section 4.3: E[S0/(1 + a S0)] = b/(1 + ab) and E[2K/(1 + 2bK)] = a/(1 + ab).

    K = kap/decay on the teacher's atoms, with decay = exp(-2 tau mu).
    """
    x, weights = law
    mean = x @ weights
    if not np.any(kap > 0):
        return mean

    def residual(log_b):
        b = math.exp(log_b)
        p = (2 * b * kap / (decay + 2 * b * kap)) @ teacher_weights
        a = p / ((1 - p) * b)
        return (a * x / (1 + a * x)) @ weights / p - 1

    top = math.log(mean)
    if residual(top) >= 0:
        return mean
    bottom = top - 1
    while residual(bottom) < 0:
        bottom -= 2 * (top - bottom)
    return math.exp(optimize.brentq(residual, bottom, top, xtol=1e-15, rtol=1e-15))


def invariant_limit(student, teacher, t, *, trace_weight_d=math.inf, ridge=0.0, rtol=1e-9):
    """Observables per dimension of section 4.3; student and teacher are laws of S0 and S*.

    tr S^2 is the response of tr S to k_i -> k_i + h e_i^2, which is -2 tr S^2, by a central
    difference; so the method has no formula for it in common with the theory page.
    """
    mu, pi = teacher
    target, hard = mu @ pi, math.isinf(trace_weight_d)

    def profile(decay, kap):
        b = free_determinant_b(student, pi, decay, kap)
        return b, b / (decay + 2 * b * kap)

    def eps_of(state, diagonal):
        return target / (diagonal @ pi) if hard else math.exp(-2 * state[-1])

    def rhs(tau, state):
        kap = np.maximum(state[:-1], 0.0)
        _, diagonal = profile(np.exp(-2 * tau * mu), kap)
        eps = eps_of(state, diagonal)
        shift = 0.0 if hard else trace_weight_d * (eps * diagonal @ pi - target) + ridge
        return np.append(eps - 2 * mu * kap, shift)

    states = solve(rhs, np.zeros(len(mu) + 1), t, rtol=rtol, atol=rtol * 1e-2)
    fields = ("loss", "distance2", "trace", "overlap", "shift", "shift_integral", "b")
    rows = []
    for tau, state in zip(t, states, strict=True):
        decay, kap = np.exp(-2 * tau * mu), state[:-1]
        b, diagonal = profile(decay, kap)
        eps = eps_of(state, diagonal)

        def trace_of(h, decay=decay, kap=kap, eps=eps):
            return eps * profile(decay, kap + h * eps)[1] @ pi

        h = 1e-3 * max(np.min(kap) / eps, 1e-3)
        near, far = (trace_of(x) - trace_of(-x) for x in (h, 2 * h))
        square = -(8 * near - far) / (24 * h)
        trace, overlap = eps * diagonal @ pi, eps * diagonal @ (mu * pi)
        distance2 = square - 2 * overlap + mu**2 @ pi
        if hard:
            loss, shift = distance2, (overlap - square) / trace
            integral = -math.log(eps) / 2
        else:
            loss = distance2 + trace_weight_d * (trace - target) ** 2
            shift, integral = trace_weight_d * (trace - target) + ridge, state[-1]
        rows.append([loss, distance2, trace, overlap, shift, integral, b])
    return dict(zip(fields, np.array(rows).T, strict=True))


# population_flow: n samples (section 5); the teacher is the projector on the first m* directions


def recovery_counts(d, m_star):
    """Degrees of freedom of a rank-m* teacher, and the count of Sarao Mannelli et al."""
    freedom = sum(d - j for j in range(m_star))
    return freedom, freedom + d - m_star


def goe(rng, d):
    """Symmetric G with E<G, H>^2 = ||H||^2 for every symmetric H."""
    G = rng.standard_normal((d, d))
    return (G + G.T) / 2


def conic_distance2(G, m_star):
    """Squared norm of the projection of G on {H: tr H = 0, P_perp H P_perp >= 0}.

    That is the squared distance to the polar cone: multiples of I plus the negative semidefinite
    matrices of the complement block.
    """
    head, cross, tail = G[:m_star, :m_star], G[:m_star, m_star:], G[m_star:, m_star:]
    values = np.linalg.eigvalsh(tail)

    def distance2(u):
        rest = np.sum(np.maximum(values - u, 0) ** 2)
        return np.sum((head - u * np.eye(m_star)) ** 2) + 2 * np.sum(cross**2) + rest

    reach = np.max(np.abs(np.linalg.eigvalsh(G))) + 1
    return optimize.minimize_scalar(distance2, bounds=(-reach, reach), method="bounded").fun


def recovery_samples(rng, d, m_star, draws):
    """Monte Carlo mean and standard error of 1 + delta."""
    values = [1 + conic_distance2(goe(rng, d), m_star) for _ in range(draws)]
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(draws)


def recovery_samples_limit(gamma_star):
    """min over u of delta/d^2 for d -> inf, with phi by quadrature."""

    def phi(u):
        return (
            2
            / math.pi
            * integrate.quad(
                lambda angle: (math.cos(angle) - u) ** 2 * math.sin(angle) ** 2, 0, math.acos(u)
            )[0]
        )

    def delta(u):
        rest = 1 - gamma_star
        cross = gamma_star * rest * (1 + 2 * u**2)
        return gamma_star**2 / 2 + cross + 2 * rest**2 * phi(u)

    return optimize.minimize_scalar(delta, bounds=(0, 1), method="bounded").fun


def symmetric_basis(d):
    """Orthonormal basis of the symmetric matrices, (d(d+1)/2, d, d)."""
    basis = []
    for i in range(d):
        for j in range(i + 1):
            B = np.zeros((d, d))
            B[i, j] = B[j, i] = 1.0 if i == j else math.sqrt(0.5)
            basis.append(B)
    return np.array(basis)


def teacher_is_unique(X, m_star, *, iterations=20_000):
    """Whether the projector is the only PSD matrix with its labels on X (n, d); None: undecided.

    It is not if and only if a symmetric H != 0 with x^T H x = 0 for every row has a positive
    semidefinite complement block. These blocks are a linear space L: alternating projections.
    """
    d = X.shape[1]
    basis = symmetric_basis(d)
    labels = np.einsum("ni,bij,nj->nb", X, basis, X)
    kernel = np.tensordot(linalg.null_space(labels).T, basis, axes=1)
    if not len(kernel):
        return True
    blocks = kernel[:, m_star:, m_star:].reshape(len(kernel), -1)
    if np.linalg.matrix_rank(blocks, tol=1e-9) < len(kernel):
        return False
    L = linalg.orth(blocks.T)
    Z = np.eye(d - m_star)
    for _ in range(iterations):
        inside = (L @ (L.T @ Z.ravel())).reshape(Z.shape)
        if np.linalg.eigvalsh(Z - inside)[0] > 1e-9 * np.linalg.norm(Z):
            return True
        inside = inside / np.linalg.norm(inside)
        values, vectors = np.linalg.eigh(inside)
        if values[0] > -1e-7:
            return False
        Z = (vectors * np.maximum(values, 0)) @ vectors.T
    return None


def sampled_loss(W, mu, X):
    """(1/(2n)) sum over samples of (x^T A x)^2: its mean is the canonical loss at kappa = 1/2."""
    A = flow_error(W, mu)
    return sum((x @ A @ x) ** 2 for x in X) / (2 * len(X))


def sampled_gradient(W, mu, X):
    A, total = flow_error(W, mu), np.zeros(W.shape)
    for x in X:
        total += 2 * (x @ A @ x) * np.outer(x, x) @ W
    return total / len(X)


# hessian: dense Hessians of the quadratic network (section 7), of W.ravel()


def numerical_hessian(gradient, W, step=1e-30):
    """Second derivative from the gradient of a polynomial, by complex steps."""
    units = np.eye(W.size).reshape(W.size, *W.shape)
    return np.array([gradient(W + 1j * step * unit).imag.ravel() / step for unit in units]).T


def population_gradient(W, W_star, a, a_star, b=0.0):
    """N times the gradient of the risk: -2 a_k (tau + 2 D) w_k."""
    a, dim = np.asarray(a), W.shape[1]
    D = (W_star.T * a_star @ W_star - W.T * a @ W) / dim
    return -2 * a[:, None] * W @ ((np.trace(D) + b) * np.eye(dim) + 2 * D)


def population_hessian(W, W_star, a, a_star, b=0.0):
    """N times the Hessian of the population risk, block by block."""
    p, dim = W.shape
    D = (W_star.T * a_star @ W_star - W.T * a @ W) / dim
    tau, eye = np.trace(D) + b, np.eye(dim)
    rows = []
    for k in range(p):
        rows.append([])
        for m in range(p):
            pairs = W[k] @ W[m] * eye + np.outer(W[k], W[m]) + np.outer(W[m], W[k])
            block = 4 * a[k] * a[m] * pairs / dim
            if k == m:
                block = block - 2 * a[k] * (tau * eye + 2 * D)
            rows[-1].append(block)
    return np.block(rows)


def spherical_hessian(W, W_star, a, a_star, b=0.0, step=1e-3):
    """N times the Hessian on the product of spheres: the risk along geodesics.

    Second differences along e_i + e_j, with Richardson's extrapolation, by polarisation.
    """
    p, dim = W.shape
    lengths = np.linalg.norm(W, axis=1)

    def risk(angle, direction):
        V = direction - np.sum(direction * W, axis=1)[:, None] * W / lengths[:, None] ** 2
        speed = np.linalg.norm(V, axis=1) / lengths
        sine = np.where(speed > 0, np.sin(angle * speed) / np.where(speed > 0, speed, 1), angle)
        moved = np.cos(angle * speed)[:, None] * W + sine[:, None] * V
        return sgd_risk(*overlaps_from_weights(moved, W_star), a, a_star, b)

    def second(direction):
        here = risk(0.0, direction)
        values = [
            (risk(h, direction) - 2 * here + risk(-h, direction)) / h**2
            for h in (2 * step, step, step / 2)
        ]
        once = [(4 * y - x) / 3 for x, y in itertools.pairwise(values)]
        return dim * (16 * once[1] - once[0]) / 15

    units = math.sqrt(dim) * np.eye(p * dim).reshape(-1, p, dim)
    alone = np.array([second(u) for u in units]) / dim
    H = np.diag(alone)
    for i, j in itertools.combinations(range(p * dim), 2):
        H[i, j] = H[j, i] = (second(units[i] + units[j]) / dim - alone[i] - alone[j]) / 2
    return H


def empirical_loss_gradient(W, X, y, a, b=0.0):
    """Gradient of (N/n) sum e^2/2, sample by sample; y without offset."""
    dim, gradient = W.shape[1], 0.0
    for x, label in zip(X, y, strict=True):
        fields = W @ x / math.sqrt(dim)
        error = label + b - np.asarray(a) @ fields**2
        gradient = gradient - 2 * error * np.outer(a * fields, x) / math.sqrt(dim)
    return dim / len(X) * gradient


def empirical_hessian(W, X, y, a, b=0.0):
    """Hessian of (N/n) sum e^2/2: of each sample the outer product of e' and e times e''."""
    p, dim = W.shape
    H = np.zeros((p * dim, p * dim))
    for x, label in zip(X, y, strict=True):
        fields = W @ x / math.sqrt(dim)
        error = label + b - np.asarray(a) @ fields**2
        slope = -2 * np.kron(a * fields, x) / math.sqrt(dim)
        H += np.outer(slope, slope) - 2 * error * np.kron(np.diag(a), np.outer(x, x)) / dim
    return dim / len(X) * H


# hessian: the bulk of the empirical Hessian (section 7.1)


def bulk_resolvent(z, M, Q, P, a, a_star, ratio, *, b=0.0, Delta=0.0, nodes=40, iterations=400):
    """g = (E[T (1 + g T/ratio)^-1] - z)^-1 by damped iteration, a small matrix for each node."""
    p = len(Q)
    values, vectors = np.linalg.eigh(overlap_matrix(M, Q, P))
    root = (vectors * np.sqrt(np.maximum(values, 0)))[:, values > 1e-12 * values[-1]]
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    dims = root.shape[1] + (Delta > 0)
    points = np.array(list(itertools.product(x, repeat=dims)))
    weights = np.prod(list(itertools.product(w / w.sum(), repeat=dims)), axis=1)
    fields = points[:, : root.shape[1]] @ root.T
    error = fields**2 @ output_weights(a, a_star) + b
    if Delta:
        error += math.sqrt(Delta) * points[:, -1]
    arrows = a * fields[:, :p]
    T = 4 * arrows[:, :, None] * arrows[:, None] - 2 * error[:, None, None] * np.diag(a)
    g = 1j * np.eye(p)
    for _ in range(iterations):
        mean = np.einsum("i,ijk->jk", weights, T @ np.linalg.inv(np.eye(p) + g @ T / ratio))
        new = np.linalg.inv(mean - z * np.eye(p))
        change, g = np.abs(new - g).max(), (g + new) / 2
        if change < 1e-11:
            break
    return g


# empirical_flow: Y = S* + sigma GOE (section 3.1)
# A teacher is (kappa*, a) for Marchenko-Pastur, or a pair of arrays, atoms and weights. Of Y one
# knows x, the mass w of each node and h = Re g(x).


def teacher_moments(teacher):
    """Mean a and second moment Q* of the eigenvalues of S*."""
    if np.ndim(teacher[0]):
        atoms, weights = np.asarray(teacher)
        return weights @ atoms, weights @ atoms**2
    k, a = teacher
    return a, a**2 * (1 + 1 / k)


def free_cubic(z, k, a, s2):
    """Coefficients of the cubic for g, highest power first."""
    return [a * s2, -(a * z + s2 * k), k * z + a - a * k, -k]


def free_resolvent(x, k, a, s2):
    """g(x - i0) = h + i pi rho: of np.roots the root that is highest above the real axis."""
    return max(np.roots(free_cubic(x, k, a, s2)), key=lambda root: root.imag)


def free_resolvents(x, k, a, s2):
    """The same for an array: eigenvalues of companion matrices, polished by Newton's method."""
    A, B, C, D = (np.broadcast_to(c, np.shape(x)) for c in free_cubic(x, k, a, s2))
    companion = np.zeros((len(x), 3, 3))
    companion[:, 0] = -np.stack([B, C, D], axis=1) / A[:, np.newaxis]
    companion[:, 1, 0] = companion[:, 2, 1] = 1
    roots = np.linalg.eigvals(companion).astype(complex)
    g = np.take_along_axis(roots, np.argmax(roots.imag, axis=1)[:, np.newaxis], axis=1)[:, 0]
    for _ in range(2):
        value, slope = ((A * g + B) * g + C) * g + D, (3 * A * g + 2 * B) * g + C
        g = g - np.divide(value, slope, out=np.zeros_like(g), where=slope != 0)
    return g


def free_corners(k, a, s2):
    """Where z(g) = s2 g + a/(1 - a g/k) + 1/g is stationary: edges of Y, real parts of complex z.

    The latter mark a near-cusp.
    """
    g, pole = Polynomial([0, 1]), Polynomial([k, -a])
    g = (s2 * g**2 * pole**2 + a**2 * k * g**2 - pole**2).roots().astype(complex)
    z = s2 * g + a / (1 - a * g / k) + 1 / g
    real = np.abs(g.imag) < 1e-7 * np.abs(g)
    return np.sort(z[real].real), z[~real & (g.imag > 0)].real


def biane_height(u, atoms, weights, s2):
    """v(u) by bisection of sum w/((u - s)^2 + v^2) = 1/s2; 0 where there is no root."""
    low, high = np.zeros(np.shape(u)), np.full(np.shape(u), math.sqrt(s2))
    distance2 = np.subtract.outer(u, atoms) ** 2
    for _ in range(60):
        middle = (low + high) / 2
        inside = (1 / (distance2 + middle[..., np.newaxis] ** 2)) @ weights > 1 / s2
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(high > 1e-15 * math.sqrt(s2), (low + high) / 2, 0.0)


def biane_point(u, v, atoms, weights, s2):
    """x(u) and h there."""
    difference = np.subtract.outer(u, atoms)
    h = (difference / (difference**2 + np.asarray(v)[..., np.newaxis] ** 2)) @ weights
    return u + s2 * h, h


class FreeSum:
    """Y for one sigma^2: its edges, and integrals over it on a grid split where one wishes."""

    def __init__(self, teacher, s2, n=64):
        self.teacher, self.s2, self.sigma = teacher, s2, math.sqrt(s2)
        self.mean, self.Q_star = teacher_moments(teacher)
        self.general = bool(np.ndim(teacher[0]))
        y, w = np.polynomial.legendre.leggauss(n)
        y, w = (1 + y) / 2, w / 2
        self.unit, self.weight = 3 * y**2 - 2 * y**3, 6 * y * (1 - y) * w
        self.cusps = np.array([])
        if self.general:
            self.ends = self._biane_edges()
            self.edges = np.array([self._x(u) for u in self.ends])
        else:
            # In units of sigma.
            k, a = teacher
            self.edges, self.cusps = (self.sigma * c for c in free_corners(k, a / self.sigma, 1.0))
            self.ends = self.edges
        self.top = self.edges[-1]

    def _biane_edges(self):
        """The u, one after the other, between which v > 0."""
        atoms, weights = np.asarray(self.teacher)

        def excess(u):
            with np.errstate(divide="ignore"):  # at an atom
                return (1 / np.subtract.outer(u, atoms) ** 2) @ weights - 1 / self.s2

        reach = 1.1 * self.sigma
        corners = [atoms.min() - reach, *np.sort(atoms), atoms.max() + reach]
        fine = special.expit(np.linspace(-25, 25, 101))
        ends = []
        for left, right in itertools.pairwise(corners):
            points = left + (right - left) * fine
            ends += [
                optimize.brentq(excess, points[i], points[i + 1], xtol=1e-15)
                for i in np.flatnonzero(np.diff(np.sign(excess(points))))
            ]
        return np.array(ends)

    def _x(self, u):
        atoms, weights = np.asarray(self.teacher)
        v = biane_height(np.array([u]), atoms, weights, self.s2)
        return biane_point(np.array([u]), v, atoms, weights, self.s2)[0][0]

    def panel(self, left, right, low, high):
        """Nodes between left and right, in the component (low, high)."""
        between = [math.asin(math.sqrt((e - low) / (high - low))) for e in (left, right)]
        angle = between[0] + (between[1] - between[0]) * self.unit
        slope = (between[1] - between[0]) * (high - low) * np.sin(2 * angle) * self.weight
        at = low + (high - low) * np.sin(angle) ** 2
        if self.general:
            atoms, weights = np.asarray(self.teacher)
            v = biane_height(at, atoms, weights, self.s2)
            x, h = biane_point(at, v, atoms, weights, self.s2)
            stretch = 1 - self.s2 * (1 / np.subtract.outer(at + 1j * v, atoms) ** 2) @ weights
            return x, v / (math.pi * self.s2) * np.abs(stretch) ** 2 / stretch.real * slope, h
        k, a = self.teacher
        g = free_resolvents(at / self.sigma, k, a / self.sigma, 1.0) / self.sigma
        return at, g.imag / math.pi * slope, g.real

    def nodes(self, low=-math.inf, high=math.inf):
        """x, w, h of all of Y between low and high, as three arrays."""
        low, high = self._place(low), self._place(high)
        found = [np.empty((3, 0))]
        for start, stop in self.ends.reshape(-1, 2):
            corners = sorted({start, stop, *self.cusps, low, high})
            corners = [c for c in corners if max(start, low) <= c <= min(stop, high)]
            found += [
                self.panel(left, right, start, stop) for left, right in itertools.pairwise(corners)
            ]
        return np.concatenate(found, axis=1)

    def _place(self, x):
        """The u with x(u) = x by Biane, x itself with the cubic."""
        if not self.general or not self.edges[0] < x < self.top:
            return x if self.edges[0] < x < self.top else math.copysign(math.inf, x - self.top)
        return optimize.brentq(
            lambda u: self._x(u) - x, self.ends[0], self.ends[-1], xtol=1e-15, maxiter=300
        )

    def tail(self, x):
        """P(y > x)."""
        return float(np.sum(self.nodes(low=x)[1]))

    def quantile(self, kappa):
        """q, with mass kappa above it; in a gap the lower edge of the upper bulk."""
        if kappa >= 1:
            return -math.inf
        for low, high in self.edges.reshape(-1, 2)[::-1]:
            if abs(self.tail(low) - kappa) < 1e-12:
                return low
            if self.tail(low) > kappa:
                return optimize.brentq(
                    lambda x: self.tail(x) - kappa, low, high, xtol=1e-15, maxiter=300
                )
        return self.edges[0]


# empirical_flow: the long-time equations (sections 3 and 3.2)


def long_time_integrals(law, tau, q):
    """What the equations need at one sigma and tau; R is given by both formulas."""
    cut = max(tau, q)
    x, w, h = law.nodes(low=cut)
    lost_x, lost_w, _ = law.nodes(high=cut)
    D = np.sum(w * (x - tau) * h)
    overlap = np.sum(w * (x - tau) * (x - 2 * law.s2 * h))
    deficit = np.sum(lost_w * lost_x**2) + tau**2 * np.sum(w)
    return {
        "D": D,
        "risk": 2 * (deficit - law.s2 + 4 * law.s2 * D),
        "risk_by_parts": 2 * (np.sum(w * (x - tau) ** 2) - 2 * overlap + law.Q_star),
        "rank": np.sum(w),
        "trace": np.sum(w * (x - tau)),
        "overlap": overlap,
    }


def long_time_threshold(law, q, alpha, lam):
    """The c and tau that satisfy c = 1 - D/alpha and tau = lam/c; for lam = 0 their limit."""

    def response(tau):
        return long_time_integrals(law, tau, q)["D"] / alpha

    if lam == 0:
        if response(0.0) <= 1:
            return 1 - response(0.0), 0.0
        return 0.0, optimize.brentq(lambda tau: response(tau) - 1, 0.0, law.top, xtol=1e-15)
    if lam >= law.top:
        return 1.0, lam
    c = optimize.brentq(lambda c: c - 1 + response(lam / c), lam / law.top, 1.0, xtol=1e-15)
    return c, lam / c


def long_time_state(law, q, tau, Delta, lam, c=None):
    """A solution with this sigma^2 and tau, and the alpha for which it is one."""
    state = long_time_integrals(law, tau, q)
    alpha = (state["risk"] + Delta) / (4 * law.s2)
    c = 1 - state["D"] / alpha if c is None else c
    train = c**2 * (state["risk"] + Delta)
    return state | {
        "alpha": alpha,
        "sigma2": law.s2,
        "threshold": tau,
        "c": c,
        "train_risk": train,
        "objective": train / 8 + lam * state["trace"] / 2,
    }


def long_time_at(teacher, s2, alpha, kappa, Delta, lam, n=64):
    """The state whose c and tau fit alpha and sigma^2; a solution if its own alpha is alpha."""
    law = FreeSum(teacher, s2, n)
    q = law.quantile(kappa)
    c, tau = long_time_threshold(law, q, alpha, lam)
    return long_time_state(law, q, tau, Delta, lam, c)


def long_time(teacher, alpha, kappa, *, Delta=0.0, lam=0.0, points=41, low=1e-10, n=64):
    """All solutions by a scan of log sigma^2, each with the flag `stable`."""

    def excess(log):  # G(sigma^2)
        return state(log)["alpha"] / alpha - 1

    def state(log):
        return long_time_at(teacher, math.exp(log), alpha, kappa, Delta, lam, n)

    _, Q_star = teacher_moments(teacher)
    scale = (2 * Q_star + Delta) / (4 * alpha)
    start, stop = math.log(max(Delta / (4 * alpha), low * scale)), math.log(50 * scale)
    while excess(stop) > 0:
        stop += 1.0
    logs = np.linspace(start, stop, points)
    values = [excess(log) for log in logs]
    found = []
    for i in range(points - 1):
        if values[i] * values[i + 1] < 0:
            log = optimize.brentq(excess, logs[i], logs[i + 1], xtol=1e-14, rtol=1e-14)
            found.append(state(log) | {"stable": values[i] > 0})
    return found


def long_time_curve(teacher, s2, kappa, *, Delta=0.0, lam=0.0, points=41, n=64):
    """All solutions with one sigma^2 > 0, whatever their alpha, by increasing tau."""
    law = FreeSum(teacher, s2, n)
    q = law.quantile(kappa)

    def excess(tau):
        state = long_time_integrals(law, tau, q)
        shift = lam / tau if lam else 0.0
        return shift - 1 + 4 * s2 * state["D"] / (state["risk"] + Delta)

    if lam >= law.top:
        return [long_time_state(law, q, lam, Delta, lam)]
    low = lam or 1e-8 * law.top
    grid = low * np.exp(np.linspace(0, math.log(law.top / low), points))
    values = [excess(tau) for tau in grid]
    roots = [
        optimize.brentq(excess, grid[i], grid[i + 1], xtol=1e-15)
        for i in range(points - 1)
        if values[i] * values[i + 1] < 0
    ]
    if lam == 0 and excess(0.0) <= 0:
        roots = [0.0, *roots]
    return [long_time_state(law, q, tau, Delta, lam) for tau in roots]


def learned_density(teacher, s2, tau, s):
    """Density of the learned spectrum at s > max(0, q - tau), Marchenko-Pastur teacher."""
    k, a = teacher
    return free_resolvent(s + tau, k, a, s2).imag / math.pi


def optimal_ridge(teacher, alpha, kappa, *, Delta, low, high, n=32):
    """Ridge between low and high with the least risk, and that risk; where one root is known."""

    def risk(log):
        return long_time(teacher, alpha, kappa, Delta=Delta, lam=math.exp(log), points=3, n=n)[0][
            "risk"
        ]

    best = optimize.minimize_scalar(
        risk, bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-4}
    )
    return math.exp(best.x), best.fun


# empirical_flow: thresholds and the Bayes risk (sections 4 and 5)


def semicircle_moments(q):
    """p, m1, m2: mass, first and second moment of the semicircle on [-2, 2] above q."""

    def moment(j):
        return integrate.quad(
            lambda u: (2 * math.sin(u)) ** j * 2 * math.cos(u) ** 2 / math.pi,
            math.asin(q / 2),
            math.pi / 2,
            epsabs=1e-14,
        )[0]

    return moment(0), moment(1), moment(2)


def kept_null_width(kappa, kappa_star):
    """The q above which (kappa - kappa*)/(1 - kappa*) of the semicircle lies."""
    share = (kappa - kappa_star) / (1 - kappa_star)
    return optimize.brentq(lambda q: semicircle_moments(q)[0] - share, -2.0, 2.0, xtol=1e-15)


def recovery_shrinkage(kappa_star):
    """t of section 4, (i), for kappa* < 1."""

    def balance(t):
        p, m1, _ = semicircle_moments(t)
        return kappa_star * t - (1 - kappa_star) * (m1 - t * p)

    return optimize.brentq(balance, 0.0, 2.0, xtol=1e-15)


def saturation_width(kappa_star):
    """kappa_c."""
    if kappa_star >= 1:
        return 1.0
    p, _, _ = semicircle_moments(recovery_shrinkage(kappa_star))
    return kappa_star + (1 - kappa_star) * p


def unique_threshold(kappa_star):
    """alpha_u."""
    return 0.5 - (1 - kappa_star) ** 2 / 4 if kappa_star < 1 else 0.5


def recovery_threshold(kappa, kappa_star, *, ridge="vanishing"):
    """alpha_PR of the limit lam -> 0+, or that of the flow without a ridge."""
    if kappa < min(kappa_star, 1):
        return math.inf
    if kappa_star >= 1:
        return 0.5
    if ridge == "none":
        if kappa >= (1 + kappa_star) / 2:
            return unique_threshold(kappa_star)
        return min(interpolation_threshold(kappa, kappa_star, 0.0), kappa - kappa**2 / 2)
    null = 1 - kappa_star
    if kappa >= saturation_width(kappa_star):
        t = recovery_shrinkage(kappa_star)
        _, m1, m2 = semicircle_moments(t)
        kept = m2 - t * m1
    else:
        _, m1, m2 = semicircle_moments(kept_null_width(kappa, kappa_star))
        kept = m2 - null * m1**2 / kappa
    return (1 - null**2 + null**2 * kept) / 2


def interpolation_threshold(kappa, kappa_star, Delta, n=64):
    """alpha_int at a = 1; for Delta = 0 in closed form, for kappa >= kappa*."""
    if Delta == 0 and kappa >= min(kappa_star, 1):
        if kappa_star >= 1:
            return 0.5
        q = kept_null_width(kappa, kappa_star) if kappa < 1 else 0.0
        null = (1 - kappa_star) ** 2
        return (1 - null + null * semicircle_moments(max(q, 0.0))[2]) / 2

    def response(s2):
        law = FreeSum((kappa_star, 1.0), s2, n)
        return long_time_integrals(law, 0.0, law.quantile(kappa))

    def excess(log):
        state = response(math.exp(log))
        return (state["risk"] + Delta) / (4 * math.exp(log) * state["D"]) - 1

    low, high = math.log(1e-8), math.log(1e3 * (1 + Delta**2))
    return response(math.exp(optimize.brentq(excess, low, high, xtol=1e-14)))["D"]


def bayes_risk(teacher, alpha, Delta, n=64):
    """R_B; the root is taken to be unique."""

    def risk(s2):
        _, w, h = FreeSum(teacher, s2, n).nodes()
        return 2 * (s2 - 4 * s2**2 * np.sum(w * h**2))

    def excess(log):
        s2 = math.exp(log)
        return (risk(s2) + Delta) / (4 * alpha * s2) - 1

    _, Q_star = teacher_moments(teacher)
    scale = (2 * Q_star + Delta) / (4 * alpha)
    low = max(Delta / (4 * alpha), 1e-8 * scale)
    s2 = math.exp(optimize.brentq(excess, math.log(low), math.log(2 * scale), xtol=1e-14))
    return risk(s2)


# empirical_flow: the network itself (section 1)


def empirical_residuals(W, X, y):
    """r = tr(X_mu S) - y_mu."""
    return np.einsum("nij,ij->n", X, W @ W.T) - y


def empirical_loss(W, X, y, lam):
    """L = (d/8n) sum r^2 + (lam/2) ||W||_F^2."""
    return len(W) / 8 * np.mean(empirical_residuals(W, X, y) ** 2) + lam / 2 * np.sum(W**2)


def empirical_gradient(W, X, y, lam):
    """grad L = (G + lam I) W with G = (d/2n) sum r X."""
    r = empirical_residuals(W, X, y)
    G = len(W) / 2 * np.mean(r[:, None, None] * X, axis=0)
    return (G + lam * np.eye(len(W))) @ W


def empirical_fields(W, S_star, X, y):
    """R, train MSE, tr S/d, tr S S*/d."""
    S, d = W @ W.T, len(W)
    train = np.mean(empirical_residuals(W, X, y) ** 2)
    return 2 / d * np.sum((S - S_star) ** 2), train, np.trace(S) / d, np.sum(S * S_star) / d


def quantile_teacher(quantile, d):
    """Means over the law's d intervals of equal mass, given its quantile function."""
    count = 4000
    return quantile((np.arange(d * count) + 0.5) / (d * count)).reshape(d, count).mean(axis=1)


def oja_flow(W, S_star, t):
    """S(t) for alpha = infinity and lam = 0 in closed form."""
    values, vectors = np.linalg.eigh(S_star)
    grow = np.exp(values * t)
    rise = np.where(values > 1e-12, np.expm1(2 * values * t) / np.maximum(values, 1e-12), 2 * t)
    W = vectors.T @ W
    inner = np.linalg.inv(np.eye(W.shape[1]) + W.T @ (rise[:, None] * W))
    return vectors @ (grow[:, None] * (W @ inner @ W.T) * grow) @ vectors.T


# empirical_flow: dynamical mean-field theory (section 2)


def dmft_draws(rng, d, m, S_star, T, *, init_scale=1.0, replicas=1, probes=1):
    """Starts (R, d, m), teachers (R, d, d), normals of the noise and probes, both of GOE(d)."""

    def matrices(*shape):
        drawn = [math.sqrt(2 / d) * goe(rng, d) for _ in range(math.prod(shape))]
        return np.reshape(drawn, (*shape, d, d))

    return (
        init_scale / math.sqrt(m) * rng.standard_normal((replicas, d, m)),
        np.broadcast_to(S_star, (replicas, d, d)),
        matrices(replicas, T),
        matrices(replicas, probes, T),
    )


def dmft_extend_noise(L, t, omega, jitter):
    """Row t of the Cholesky factor of Omega + jitter from the rows before."""
    row = np.zeros(t + 1)
    if t:
        row[:t] = linalg.solve_triangular(L[:t, :t], omega[:t], lower=True)
    row[t] = np.sqrt(max(omega[t] + jitter - row @ row, jitter))
    L[t, : t + 1] = row


def dmft(draws, alpha, noise_var, lr, ridge, *, momentum=0.0):
    """The causal construction of section 2.1; lr and ridge (T,) are those of each step.

    All replicas share the kernels; full matrices, double precision, one replica after the other.
    """
    W, teacher, Z, P = (np.array(x) for x in draws)
    R, d, _ = W.shape
    K, T = P.shape[1], len(lr)
    A = np.zeros((R, T + 1, d * d))
    dS = np.zeros((R, K, T + 1, d * d))
    Z, P = Z.reshape(R, T, d * d), P.reshape(R, K, T, d * d)
    dW = np.zeros((R, K, *W.shape[1:]))
    before, dbefore = W.copy(), dW.copy()
    C, chi, M, Cr, L = (np.zeros((T + 1, T + 1)) for _ in range(5))
    trace, overlap, exact = np.zeros((R, T + 1)), np.zeros((R, T + 1)), 0.0
    for t in range(T + 1):
        for r in range(R):
            S = W[r] @ W[r].T
            A[r, t] = (S - teacher[r]).ravel()
            trace[r, t], overlap[r, t] = np.trace(S) / d, np.sum(S * teacher[r]) / d
            C[t, : t + 1] += 2 / d * (A[r, : t + 1] @ A[r, t]) / R
            for k in range(K):
                half = dW[r, k] @ W[r].T
                dS[r, k, t] = (half + half.T).ravel()
                chi[t, :t] += P[r, k, :t] @ dS[r, k, t] / (2 * d) / (R * K)
        C[: t + 1, t] = C[t, : t + 1]
        if t:
            chi[t, t - 1] = exact
        M[t, t] = 1.0
        M[t, :t] = chi[t, :t] @ M[:t, :t] / alpha
        Y = (C[: t + 1, : t + 1] + noise_var) @ M[t, : t + 1]
        Cr[t, : t + 1] = Cr[: t + 1, t] = M[: t + 1, : t + 1] @ Y
        if t == T:
            break
        jitter = 1e-9 * Cr[0, 0] / (4 * alpha)
        dmft_extend_noise(L, t, Cr[t, : t + 1] / (4 * alpha), jitter)
        exact = 0.0
        for r in range(R):
            B = M[t, : t + 1] @ A[r, : t + 1] + L[t, : t + 1] @ Z[r, : t + 1]
            B = B.reshape(d, d) + ridge[t] * np.eye(d)
            for k in range(K):
                dB = (M[t, : t + 1] @ dS[r, k, : t + 1] + P[r, k, t]).reshape(d, d)
                new = dW[r, k] + momentum * (dW[r, k] - dbefore[r, k])
                new -= lr[t] * (B @ dW[r, k] + dB @ W[r])
                dbefore[r, k], dW[r, k] = dW[r, k], new
            new = W[r] + momentum * (W[r] - before[r]) - lr[t] * B @ W[r]
            exact -= lr[t] * (d + 1) / d**2 * np.sum(W[r] * new) / R
            before[r], W[r] = W[r], new
    return {
        "correlation": C,
        "response": chi,
        "memory": M,
        "residual_correlation": Cr,
        "factor": L,
        "trace": trace.mean(axis=0),
        "overlap": overlap.mean(axis=0),
    }


def dmft_process(draws, M, omega, lr, ridge):
    """C and chi of the effective process whose memory and noise covariance are given."""
    starts, teachers, Z, P = draws
    R, K, T, d, _ = P.shape
    jitter = 1e-9 * omega[0, 0]
    L = np.zeros((T, T))
    for t in range(T):
        dmft_extend_noise(L, t, omega[t, : t + 1], jitter)
    C, chi = np.zeros((T + 1, T + 1)), np.zeros((T + 1, T + 1))
    for r in range(R):
        H = np.tensordot(L, Z[r], 1)
        W, A = starts[r], []
        dW, dS = np.zeros((K, *W.shape)), [[] for _ in range(K)]
        for t in range(T + 1):
            A.append(W @ W.T - teachers[r])
            for k in range(K):
                dS[k].append(dW[k] @ W.T + W @ dW[k].T)
            if t == T:
                break
            B = ridge[t] * np.eye(d) + sum(M[t, s] * A[s] for s in range(t + 1)) + H[t]
            for k in range(K):
                dB = sum(M[t, s] * dS[k][s] for s in range(t + 1)) + P[r, k, t]
                dW[k] = dW[k] - lr[t] * (B @ dW[k] + dB @ W)
            new = W - lr[t] * B @ W
            chi[t + 1, t] -= lr[t] * (d + 1) / d**2 * np.sum(W * new) / R
            W = new
        for t, s in itertools.product(range(T + 1), repeat=2):
            C[t, s] += 2 / d * np.sum(A[t] * A[s]) / R
            if s < t - 1:
                products = [np.sum(P[r, k, s] * dS[k][t]) for k in range(K)]
                chi[t, s] += np.mean(products) / (2 * d) / R
    return C, chi


def dmft_iteration(draws, alpha, noise_var, lr, ridge, *, damping=0.5, tol=1e-12, most=500):
    """Kernels as the fixed point of a damped iteration of all of them at once."""
    T = len(lr)
    C, chi = np.eye(T + 1), np.zeros((T + 1, T + 1))
    for _ in range(most):
        M = np.linalg.inv(np.eye(T + 1) - chi / alpha)
        Cr = M @ (C + noise_var) @ M.T
        new_C, new_chi = dmft_process(draws, M, Cr / (4 * alpha), lr, ridge)
        change = max(np.abs(new_C - C).max(), np.abs(new_chi - chi).max())
        if change < tol:
            break
        C, chi = C + damping * (new_C - C), chi + damping * (new_chi - chi)
    return {"correlation": C, "response": chi, "memory": M, "residual_correlation": Cr}


# random_features: activations and pair kernels (sections 1 and 2)

ODD_FEATURES = ("erf", "linear", "sign")
FEATURES = {
    "erf": lambda x: special.erf(x / math.sqrt(2)),
    "relu": lambda x: np.maximum(x, 0.0),
    "quad": lambda x: (x**2 - 1) / math.sqrt(2),
    "square": lambda x: x**2,
    "linear": lambda x: x,
    "sign": np.sign,
}


def half_normal_nodes(n=200, reach=13.0):
    """Nodes x > 0 and weights of E[f(x); x > 0] for a standard normal x."""
    x, w = np.polynomial.legendre.leggauss(n)
    x = reach * (x + 1) / 2
    return x, reach * w / 2 * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def feature_hermite(g, order):
    """mu_k = E g(x) He_k(x) and kappa_k = mu_k^2/k!, k = 0 ... order."""
    x, w = half_normal_nodes()
    x, w = np.concatenate([x, -x]), np.concatenate([w, w])
    he = [np.polynomial.hermite_e.hermeval(x, np.eye(order + 1)[k]) for k in range(order + 1)]
    mu = np.array([np.sum(w * FEATURES[g](x) * h) for h in he])
    return mu, mu**2 / np.array([math.factorial(k) for k in range(order + 1)])


def feature_kernel_quadrature(g, gs, c, A, C, n=200, reach=13.0):
    """E g(x) g*(y) with Var x = A, Var y = C, Cov = c: x outside, y inside, both split at 0."""
    node, weight = np.polynomial.legendre.leggauss(n)
    outer, outer_weight = half_normal_nodes(n, reach)
    x = math.sqrt(A) * np.concatenate([outer, -outer])
    mean, spread = c / A * x, math.sqrt(max(C - c**2 / A, 0.0))
    if spread == 0.0:
        inside = FEATURES[gs](mean)
    else:
        kink = np.clip(-mean / spread, -reach, reach)
        inside = np.zeros_like(x)
        for low, high in ((np.full_like(kink, -reach), kink), (kink, np.full_like(kink, reach))):
            z = low + np.outer((node + 1) / 2, high - low)
            density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
            values = FEATURES[gs](mean + spread * z) * density
            inside += (high - low) / 2 * (weight @ values)
    return float(np.sum(np.tile(outer_weight, 2) * FEATURES[g](x) * inside))


def feature_kernel(g, gs, c, A, C):
    """E g(x) g*(y) in closed form; c, A and C may be arrays."""
    c, A, C = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (c, A, C)))
    angle = np.arccos(np.clip(c / np.sqrt(A * C), -1.0, 1.0))
    closed = {
        ("erf", "erf"): lambda: 2 / math.pi * np.arcsin(c / np.sqrt((1 + A) * (1 + C))),
        ("sign", "sign"): lambda: 1 - 2 * angle / math.pi,
        ("erf", "sign"): lambda: 2 / math.pi * np.arcsin(c / np.sqrt((1 + A) * C)),
        ("relu", "relu"): lambda: (
            np.sqrt(A * C) / (2 * math.pi) * (np.sin(angle) + (math.pi - angle) * np.cos(angle))
        ),
        ("square", "square"): lambda: A * C + 2 * c**2,
        ("quad", "quad"): lambda: (A * C + 2 * c**2 - A - C + 1) / 2,
        ("quad", "square"): lambda: (A * C + 2 * c**2 - C) / math.sqrt(2),
        ("linear", "linear"): lambda: c,
        ("erf", "linear"): lambda: c * math.sqrt(2 / math.pi) / np.sqrt(1 + A),
        ("relu", "linear"): lambda: c / 2,
        ("erf", "relu"): lambda: c / 2 * math.sqrt(2 / math.pi) / np.sqrt(1 + A),
        ("relu", "quad"): lambda: np.sqrt(A / (4 * math.pi)) * (C + c**2 / A - 1),
        ("sign", "linear"): lambda: c * np.sqrt(2 / (math.pi * A)),
        ("relu", "sign"): lambda: c / 2 * np.sqrt(2 / (math.pi * C)),
        ("relu", "square"): lambda: np.sqrt(A / (2 * math.pi)) * (C + c**2 / A),
    }
    if (g, gs) in closed:
        return closed[g, gs]()
    if (gs, g) in closed:
        return feature_kernel(gs, g, c, C, A)
    assert (g in ODD_FEATURES) != (gs in ODD_FEATURES)
    return np.zeros_like(c)


# random_features: exact population quantities (section 2)


def features_population(W, B, v, g, gs):
    """G (K, K), r (K,) and Ey2."""
    N = W.shape[1]

    def kernels(first, second, one, other):
        # Each by the same sum: sign has an infinite slope at correlation 1.
        covariance = np.array([[x @ y for y in other] for x in one]) / N
        A, C = (np.array([x @ x for x in rows]) / N for rows in (one, other))
        return feature_kernel(first, second, covariance, A[:, None], C)

    return kernels(g, g, W, W), kernels(g, gs, W, B) @ v, float(v @ kernels(gs, gs, B, B) @ v)


def features_risk(a, G, r, Ey2):
    """eps of the coefficients a."""
    K = len(r)
    return (a @ G @ a / K - 2 * r @ a / math.sqrt(K) + Ey2) / 2


def features_best_fit(G, r, Ey2):
    """eps_min, a* and the eigenvalues of G, ascending."""
    s, U = np.linalg.eigh(G)
    projected = U.T @ r
    kept = s > 1e-13 * s[-1]
    coefficients = np.where(kept, projected / np.where(kept, s, 1.0), 0.0)
    return (Ey2 - projected @ coefficients) / 2, math.sqrt(len(r)) * U @ coefficients, s


# random_features: SGD itself (section 3)


def features_sgd(W, B, v, g, gs, X, lr, a, noise=None):
    """The coefficients after every step on the rows of X, (n+1, K); lr may be one per step."""
    K, N = W.shape
    lr, noise = np.broadcast_to(lr, len(X)), np.zeros(len(X)) if noise is None else noise
    path = [np.array(a, dtype=float)]
    for x, eta, zeta in zip(X, lr, noise, strict=True):
        phi = FEATURES[g](W @ x / math.sqrt(N)) / math.sqrt(K)
        y = v @ FEATURES[gs](B @ x / math.sqrt(N)) + zeta
        path.append(path[-1] - eta * (phi @ path[-1] - y) * phi)
    return np.array(path)


def features_sgd_blocked(W, B, v, g, gs, X, lr, a, noise=None, block=64):
    """The coefficients after all rows of X, by a triangular solve for each block of them."""
    K, N = W.shape
    lr, noise = np.broadcast_to(lr, len(X)), np.zeros(len(X)) if noise is None else noise
    a = np.array(a, dtype=float)
    for first in range(0, len(X), block):
        rows = slice(first, first + block)
        phi = FEATURES[g](X[rows] @ W.T / math.sqrt(N)) / math.sqrt(K)
        y = FEATURES[gs](X[rows] @ B.T / math.sqrt(N)) @ v + noise[rows]
        L = np.eye(len(y)) + np.tril(phi @ phi.T, -1) * lr[rows]
        e = linalg.solve_triangular(L, phi @ a - y, lower=True, unit_diagonal=True)
        a = a - phi.T @ (lr[rows] * e)
    return a


# random_features: equations for a given first layer (section 4)


def features_modes_start(G, r, Ey2, init_var=0.0):
    """Eigenvalues s of G, D_k at tau = 0 and the residual variance s2r."""
    s, U = np.linalg.eigh(G)
    eps_min, best, _ = features_best_fit(G, r, Ey2)
    return np.maximum(s, 0.0), (U.T @ best) ** 2 + init_var, 2 * eps_min


def features_modes_map(G, r, Ey2, lr, steps, *, closure, init_var=0.0, noise_var=0.0):
    """eps after the given numbers of steps; lr is a function of tau."""
    s, D, s2r = features_modes_start(G, r, Ey2, init_var)
    lam = s / len(s)
    risks = [(s2r + lam @ D) / 2]
    for n in range(max(steps)):
        eta, S = lr(n / len(s)), s2r + noise_var + lam @ D
        contraction = 1 - 2 * eta * lam
        if closure == "gaussian":
            contraction = contraction + 2 * eta**2 * lam**2
        D = contraction * D + eta**2 * lam * S
        risks.append((s2r + lam @ D) / 2)
    return np.array(risks)[list(steps)]


def features_modes_flow(G, r, Ey2, lr, t, *, closure, init_var=0.0, noise_var=0.0, noise=True):
    """eps at times tau of the equations in continuous time; lr is a function of tau."""
    s, D0, s2r = features_modes_start(G, r, Ey2, init_var)
    lam = s / len(s)

    def slope(tau, D):
        eta = lr(tau)
        if not noise:
            return -2 * eta * s * D
        S = s2r + noise_var + lam @ D
        extra = 2 * eta**2 * lam * s * D if closure == "gaussian" else 0.0
        return -2 * eta * s * D + extra + eta**2 * s * S

    end = max(t[-1], 1e-9)
    path = integrate.solve_ivp(slope, (0, end), D0, "DOP853", t, rtol=1e-12, atol=1e-14)
    return (s2r + lam @ path.y) / 2


def features_volterra(G, r, Ey2, eta, t, *, init_var=0.0, noise_var=0.0):
    """eps on an even grid of times by the trapezoidal rule for S = F + k * S."""
    s, D0, s2r = features_modes_start(G, r, Ey2, init_var)
    K, h = len(s), t[1] - t[0]
    decay = np.exp(-2 * eta * np.outer(t, s))
    F = s2r + noise_var + decay @ (s * D0) / K
    k = eta**2 * decay @ s**2 / K
    S = np.empty(len(t))
    S[0] = F[0]
    for n in range(1, len(t)):
        past = k[n] * S[0] / 2 + k[n - 1 : 0 : -1] @ S[1:n]
        S[n] = (F[n] + h * past) / (1 - h * k[0] / 2)
    return (S - noise_var) / 2


def features_stationary(G, r, Ey2, eta, *, closure, noise_var=0.0):
    """eps at late times of the equations, infinite where they are unstable."""
    s, _, s2r = features_modes_start(G, r, Ey2)
    lam = s / len(s)
    gain = eta * np.sum(lam) / 2
    if closure == "gaussian":
        if eta * lam[-1] >= 1:
            return math.inf
        gain = np.sum(eta * lam / (2 * (1 - eta * lam)))
    return ((s2r + noise_var) / (1 - gain) - noise_var) / 2 if gain < 1 else math.inf


# random_features: the proportional limit (section 5)


def features_energies(g, gs, v, T):
    """kappa_0, kappa_1, mu_*^2 and q of g; E0, E1, T* and Ey2 of the teacher."""
    _, kappa = feature_hermite(g, 1)
    mu, _ = feature_hermite(gs, 1)
    q = float(feature_kernel(g, g, 1.0, 1.0, 1.0))
    Ey2 = float(v @ feature_kernel(gs, gs, T, 1.0, 1.0) @ v)
    E1 = float(mu[1] ** 2 * v @ T @ v)
    E0 = float((mu[0] * np.sum(v)) ** 2) if kappa[0] > 1e-12 else 0.0
    return kappa[0], kappa[1], q - kappa[0] - kappa[1], q, E0, E1, Ey2 - E1 - E0, Ey2


def linear_fraction(delta, rho):
    """h(delta, rho) by its fixed point, iterated."""
    h = 1.0
    for _ in range(100_000):
        h, last = 1 / (1 + rho * delta / (1 + rho * h)), h
        if abs(h - last) < 1e-16:
            break
    return h


def features_proportional_best(g, gs, v, T, delta):
    """eps_min."""
    _, kappa1, rest, _, _, E1, unlearnable, _ = features_energies(g, gs, v, T)
    if abs(rest) < 1e-12:
        h = max(0.0, 1 - delta) if kappa1 > 0 else 1.0
    else:
        h = linear_fraction(delta, max(kappa1, 0.0) / rest)
    return (E1 * h + unlearnable) / 2


def features_proportional(
    g, gs, v, T, delta, eta, t, *, init_var=0.0, noise_var=0.0, noise=True, n=300
):
    """eps at times tau > 0 on quadrature nodes of the Marchenko-Pastur law."""
    kappa0, kappa1, rest, _, _, E1, _, _ = features_energies(g, gs, v, T)
    phi = np.arange(1, n + 1) * math.pi / (n + 1)
    x = np.append(1 + delta + 2 * math.sqrt(delta) * np.cos(phi), 0.0)
    w = 2 * delta * np.sin(phi) ** 2 / ((n + 1) * x[:-1])
    w = np.append(w / delta, max(0.0, 1 - np.sum(w) / delta))
    s = kappa1 * x + rest
    s2r = 2 * features_proportional_best(g, gs, v, T, delta)
    D0 = delta * kappa1 * x * E1 / s**2 + init_var
    factor = 1 / (1 - eta * kappa0 / 2) if noise else 1.0

    def total(D):
        return factor * (s2r + (noise_var if noise else 0.0) + (w * s) @ D)

    def slope(tau, D):
        return -2 * eta * s * D + (eta**2 * s * total(D) if noise else 0.0)

    path = integrate.solve_ivp(slope, (0, t[-1]), D0, "DOP853", t, rtol=1e-12, atol=1e-14)
    return (total(path.y) - (noise_var if noise else 0.0)) / 2


# random_features: harmonics of the sphere (section 6)


def sphere_multiplicity(N, degree):
    """Dimension of the harmonics of a degree: polynomials of the degree minus those of two less."""
    lower = math.comb(N + degree - 3, degree - 2) if degree > 1 else 0
    return math.comb(N + degree - 1, degree) - lower


def sphere_legendre(N, lmax, t):
    """P_0 ... P_lmax at t, in dimension N."""
    t = np.asarray(t, dtype=float)
    P = [np.ones_like(t), t]
    for n in range(1, lmax):
        P.append(((2 * n + N - 2) * t * P[n] - n * P[n - 1]) / (n + N - 2))
    return np.array(P[: lmax + 1])


def sphere_eigenvalues(g, gs, N, lmax, n=400):
    """Of the kernel E g g* on the sphere; in the angle everything is analytic."""
    node, weight = np.polynomial.legendre.leggauss(n)
    theta = math.pi * (node + 1) / 2
    measure = weight * np.sin(theta) ** (N - 2)
    kernel = feature_kernel(g, gs, np.cos(theta), 1.0, 1.0)
    return sphere_legendre(N, lmax, np.cos(theta)) @ (measure * kernel) / np.sum(measure)


def feature_taylor(g, terms):
    """kappa_k for k < terms, from the table of section 1."""
    kappa = np.zeros(terms)
    if g in ("quad", "square"):
        kappa[0], kappa[2] = (0.0, 1.0) if g == "quad" else (1.0, 2.0)
    if g == "linear":
        kappa[1] = 1.0
    if g == "relu":
        kappa[:2] = 1 / (2 * math.pi), 1 / 4
        for m in range(1, (terms + 1) // 2):
            log_binomial = special.gammaln(2 * m - 1) - 2 * special.gammaln(m)
            central = math.exp(log_binomial - (m - 1) * math.log(4))
            kappa[2 * m] = central / (2 * math.pi * (2 * m - 1) * (2 * m))
    if g in ("erf", "sign"):
        for m in range(terms // 2):
            log_binomial = special.gammaln(2 * m + 1) - 2 * special.gammaln(m + 1)
            central = math.exp(log_binomial - m * math.log(4))
            kappa[2 * m + 1] = 2 / math.pi * central / (2 * m + 1)
            if g == "erf":
                kappa[2 * m + 1] *= 0.5 ** (2 * m + 1)
    return kappa


def feature_signs(g, terms):
    """Signs of mu_k."""
    k = np.arange(terms)
    if g in ("erf", "sign"):
        return (-1.0) ** ((k - 1) // 2)
    return np.where(k > 2, (-1.0) ** (k // 2 - 1), 1.0) if g == "relu" else np.ones(terms)


def sphere_series(kappa, N, lmax):
    """Eigenvalues of the kernel sum_k kappa_k t^k on the sphere."""
    lam = np.zeros(lmax + 1)
    for degree in range(lmax + 1):
        k = np.arange(degree, len(kappa), 2)
        log_c = special.gammaln(k + 1) + special.gammaln((k - degree + 1) / 2)
        log_c += special.gammaln(N / 2) - degree * math.log(2) - math.log(math.pi) / 2
        log_c -= special.gammaln(k - degree + 1)
        log_c -= special.gammaln((k + degree + N) / 2)
        lam[degree] = kappa[k] @ np.exp(log_c)
    return lam


def sphere_law(g, gs, N, v, T, lmax, terms=4000):
    """lambda_l, B_l, tail, E_l and the rest of Ey2, of which no finite width knows more."""
    B = np.array([float(sphere_multiplicity(N, degree)) for degree in range(lmax + 1)])
    kappa, kappa_star = feature_taylor(g, terms), feature_taylor(gs, terms)
    signs = feature_signs(g, terms) * feature_signs(gs, terms)
    lam = sphere_series(kappa, N, lmax)
    cross = sphere_series(signs * np.sqrt(kappa * kappa_star), N, lmax)
    angular = np.array([v @ P @ v for P in sphere_legendre(N, lmax, T)])
    E = np.where(lam > 0, B * cross**2 * angular / np.where(lam > 0, lam, 1.0), 0.0)
    q = float(feature_kernel(g, g, 1.0, 1.0, 1.0))
    Ey2 = float(v @ feature_kernel(gs, gs, T, 1.0, 1.0) @ v)
    tail = q - B @ lam
    return lam, B, (tail if abs(tail) > 1e-13 else 0.0), E, Ey2 - np.sum(E)


def sphere_best(law, K):
    """nu and eps_min of the deterministic equivalent."""
    lam, B, tail, E, rest = law
    if tail == 0.0 and np.sum(B[lam > 0]) <= K:
        return 0.0, rest / 2

    def excess(u):
        nu = math.exp(u)
        return np.sum(B * lam / (lam + nu)) + tail / nu - K

    nu = math.exp(optimize.brentq(excess, -80.0, 20.0, xtol=1e-14, rtol=1e-14))
    return nu, (np.sum(E * nu / (lam + nu)) + rest) / 2


def sphere_width(g, N, tol, lmax):
    """Smallest real K with 2 eps_min / Ey2 <= tol, one unit and the same activation."""
    law = sphere_law(g, g, N, np.ones(1), np.eye(1), lmax)
    Ey2 = float(feature_kernel(g, g, 1.0, 1.0, 1.0))

    def excess(u):
        return 2 * sphere_best(law, math.exp(u))[1] / Ey2 - tol

    return math.exp(optimize.brentq(excess, -1.0, 60.0, xtol=1e-13))


# random_features: the learning curve in the Laplace domain (section 7)


def sphere_resolvent(law, K, z):
    """nu(z): iterations of the fixed point, which stay in the right half plane, then Newton's."""
    lam, B, tail = law[:3]
    weights = np.append(B[lam > 0] * lam[lam > 0], tail)
    poles = np.append(lam[lam > 0], 0.0)
    nu = np.array(z, dtype=complex)
    for _ in range(20_000):
        nu, last = z + nu * (weights / (poles + nu[:, None])).sum(1) / K, nu
        if np.max(np.abs(nu - last) / np.abs(nu)) < 1e-10:
            break
    for _ in range(4):
        excess = nu - z - nu * (weights / (poles + nu[:, None])).sum(1) / K
        nu = nu - excess / (1 - (weights * poles / (poles + nu[:, None]) ** 2).sum(1) / K)
    return nu


def sphere_curve(law, K, eta, t, *, init_var=0.0, noise_var=0.0, noise=True, nodes=24):
    """eps at times tau > 0 by Talbot's contour."""
    lam, B, tail, E, rest = law
    noise_var = noise_var if noise else 0.0
    risks = []
    for tau in t:
        theta = np.arange(1, nodes) * math.pi / nodes
        cot = 1 / np.tan(theta)
        radius = 2 * nodes / (5 * tau)
        p = np.append(radius, radius * theta * (cot + 1j))
        weight = np.append(0.5, 1 + 1j * (theta + (theta * cot - 1) * cot))
        z = p / (2 * eta * K)
        nu = sphere_resolvent(law, K, z)[:, None]
        d = (B * lam / (lam + nu)).sum(1) + tail / nu[:, 0]
        nu, step = nu[:, 0], nu[:, 0] * d / K
        pole = lam + nu[:, None]
        R = (E * nu[:, None] / pole).sum(1) / z + (rest + noise_var) / z + init_var * d
        k = (B * lam * (lam + step[:, None]) / pole).sum(1) + tail * step / nu
        S = R / (2 * eta * K) / (1 - (eta / 2 * k if noise else 0.0))
        total = radius / nodes * np.sum((weight * np.exp(p * tau) * S).real)
        risks.append((total - noise_var) / 2)
    return np.array(risks)


def sphere_kernel_limit(law, eta, steps, *, noise_var=0.0):
    """eps after the given numbers of steps at infinite width."""
    lam, B, _, X, rest = law
    risks = [(np.sum(X) + rest) / 2]
    for _ in range(max(steps)):
        S = np.sum(X) + rest + noise_var
        X = (1 - 2 * eta * lam) * X + eta**2 * B * lam**2 * S
        risks.append((np.sum(X) + rest) / 2)
    return np.array(risks)[list(steps)]


# random_features: the finite-size factor of the stability limit (section 4e)


def feature_kurtosis(g, K, N):
    """chi = E|phi|^4/q^2 to first order in 1/K and 1/N."""
    x, w = half_normal_nodes()
    x, w = np.concatenate([x, -x]), np.concatenate([w, w])
    q, fourth = np.sum(w * FEATURES[g](x) ** 2), np.sum(w * FEATURES[g](x) ** 4)
    second = np.sum(w * FEATURES[g](x) ** 2 * (x**2 - 1))
    return 1 + (fourth / q**2 - 1) / K + second**2 / (2 * q**2) / N


# giant_step: activations and Gaussian moments (sections 1 to 3)

_he3 = np.polynomial.Polynomial([0, 1 - 3 / math.sqrt(6), 0, 1 / math.sqrt(6)])
_quad1 = np.polynomial.Polynomial([-0.5, 1, 0.5])
STEP_ACTIVATIONS = {
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "relu": (lambda x: np.maximum(x, 0), lambda x: np.heaviside(x, 0.5)),
    "erf": (
        lambda x: special.erf(x / math.sqrt(2)),
        lambda x: math.sqrt(2 / math.pi) * np.exp(-(x**2) / 2),
    ),
    "sin": (np.sin, np.cos),
    "softplus": (lambda x: np.logaddexp(0, x), special.expit),
    "linear": (lambda x: x, np.ones_like),
    "sinlin": (lambda x: np.sin(2 * x) + x, lambda x: 2 * np.cos(2 * x) + 1),
    "sin2": (lambda x: np.sin(2 * x), lambda x: 2 * np.cos(2 * x)),
    "he3": (_he3, _he3.deriv()),
    "quad1": (_quad1, _quad1.deriv()),
}


LEGENDRE = np.polynomial.legendre.leggauss(200)


def gauss_mean(f, splits=(0.0,), reach=9.0):
    """E f(z) of a standard normal, by Gauss-Legendre between the points where f has kinks."""
    x, w = LEGENDRE
    ends = [-reach, *sorted(s for s in splits if abs(s) < reach), reach]
    total = 0.0
    for a, b in itertools.pairwise(ends):
        z = a + (b - a) * (x + 1) / 2
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        total = total + np.asarray(f(z)) @ (w * density * (b - a) / 2)
    return total


def step_moments(activation):
    """(e0, e2, h1, h2, h3, hs2) of section 2."""
    s, ds = STEP_ACTIVATIONS[activation]
    h1, h2 = gauss_mean(ds), gauss_mean(lambda z: z * ds(z))
    return (
        gauss_mean(s),
        gauss_mean(lambda z: s(z) ** 2),
        h1,
        h2,
        gauss_mean(lambda z: (z**2 - 1) * ds(z)),
        gauss_mean(lambda z: ds(z) ** 2) - h1**2 - h2**2,
    )


def step_features(activation, k, c):
    """mu0, mu1, mus^2 and d mu0/dc at a point k and a variance c, by quadrature (section 3)."""
    s, _ = STEP_ACTIVATIONS[activation]
    root = math.sqrt(c)

    def mean(g):
        return gauss_mean(lambda z: g(z, s(k + root * z)), splits=(-k / root,))

    mu0, mu1 = mean(lambda _, y: y), mean(lambda z, y: z * y) / root
    mu0 = mu0 if abs(mu0) > 1e-15 else 0.0  # so that section 4.3 sees a function that is zero
    curvature = mean(lambda z, y: (z**2 - 1) * y) / (2 * c)
    return mu0, mu1, max(mean(lambda _, y: y**2) - mu0**2 - c * mu1**2, 0.0), curvature


def step_target(target, k, gamma):
    """h, h1 and hh of section 3 at a point k."""
    s, _ = STEP_ACTIVATIONS[target]
    rho = math.sqrt(1 - gamma**2)
    splits = (-gamma * k / rho,) if rho else ()

    def mean(g):
        return gauss_mean(lambda z: g(z, s(gamma * k + rho * z)), splits=splits)

    return mean(lambda _, y: y), mean(lambda z, y: z * y), mean(lambda _, y: y**2)


def step_spike(activation, target, eta, alpha0, avals, pi, Delta):
    """r, c, gamma, |g| and fbar of section 2."""
    avals, pi = np.asarray(avals), np.asarray(pi)
    e0, _, h1, h2, _, hs2 = step_moments(activation)
    t0, t2, t1 = step_moments(target)[:3]
    fbar = e0 * float(pi @ avals)
    y1, y2 = t0 - fbar, t2 + Delta - 2 * fbar * t0 + fbar**2
    g = math.sqrt(t1**2 + y2 / alpha0)
    e = eta * avals
    c = 1 + 2 * e * h2 * y1 + e**2 * (h2**2 * (y1**2 + y2 / alpha0) + hs2 * y2 / alpha0)
    return eta * avals * h1 * g, c, t1 / g, g, fbar


# giant_step: the readout of spiked random features (section 4)


def step_grid(r, c, reach=8.5, finest=0.04):
    """Nodes of kappa and their Gaussian weights, with sum 1."""
    steepest = np.abs(r).max()
    h = min(finest, 0.2 * math.sqrt(np.min(c)) / steepest) if steepest else finest
    half = math.ceil(reach / h)
    kappa = h * np.arange(-half, half + 1)
    weight = np.exp(-(kappa**2) / 2)
    return kappa, weight / weight.sum()


def step_tables(activation, target, r, c, gamma):
    """kappa and its weights; mu0, mu1, mus^2 and mu0c (K, Nk); h, h1, hh (Nk,)."""
    kappa, weight = step_grid(r, c)
    features = [
        [step_features(activation, r_g * k, c_g) for k in kappa]
        for r_g, c_g in zip(r, c, strict=True)
    ]
    mu = np.array(features).transpose(2, 0, 1)
    return kappa, weight, mu, np.array([step_target(target, k, gamma) for k in kappa]).T


def step_resolvent(V1h, Lam, c, pi, beta):
    """v, V1 and V2 of section 4.1, by damped iteration."""
    c, pi, Lam = np.asarray(c), np.asarray(pi), np.asarray(Lam)
    v = 1 / Lam
    for _ in range(100000):
        N = np.diag(beta * pi * c * v)
        X = np.linalg.solve(np.eye(len(c)) + V1h @ N, V1h)
        new = 1 / (Lam + c * np.diag(X))
        moved = np.abs(new / v - 1).max()
        v = (v + new) / 2
        if moved < 1e-15:
            break
    N = np.diag(beta * pi * c * v)
    kap = N @ np.linalg.inv(np.eye(len(c)) + V1h @ N)
    return v, kap / beta, pi * v


def step_solve(
    activation, target, *, alpha, beta, lam, r, c, gamma, pi=(1.0,), Delta=0.0, tol=1e-14,
    nu=None, cv=None, finite_p=math.inf,
):  # fmt: skip
    """All of section 4: V1h and V2h by damped iteration, then m, theta, psi and Q by solving.

    The derivatives of the resolvent are central differences. `nu` is the norm slope of section
    6.2, `cv` the variance of sqrt(d) s_i in section 5.
    """
    r, c, pi = np.asarray(r, float), np.asarray(c, float), np.asarray(pi, float)
    K, R = len(r), alpha / beta
    kappa, weight, (mu0, mu1, mus, mu0c), (h, h1, hh) = step_tables(activation, target, r, c, gamma)
    cv = c if cv is None else np.asarray(cv, float)
    nu = np.zeros(K) if nu is None else np.asarray(nu, float)
    slopes = kappa * mu1 + nu[:, None] * mu0c

    def pairs(w):
        return np.einsum("gk,hk,k->gh", mu1, mu1, w)

    V1h, V2h = R * pairs(weight), R * mus @ weight
    for _ in range(20000):
        v, V1, V2 = step_resolvent(V1h, lam + V2h, c, pi, beta)
        Vk = np.einsum("gk,hk,gh->k", mu1, mu1, V1) + V2 @ mus
        new1, new2 = R * pairs(weight / (1 + Vk)), R * mus @ (weight / (1 + Vk))
        moved = max(np.abs(new1 - V1h).max() / np.abs(new1).max(), np.abs(new2 - V2h).max() / lam)
        V1h, V2h = (V1h + new1) / 2, (V2h + new2) / 2
        if moved < tol:
            break
    kap, w = beta * V1, weight / (1 + Vk)
    epsi = mu1 @ (w * h1)
    psi = R * kap @ epsi
    # c(k) = m . mu0 + theta . slopes, with theta = R beta pi cv v E[slopes (h - c)] and m free.
    functions = np.vstack([mu0, slopes])
    G, b = np.einsum("ik,jk,k->ij", functions, functions, w), functions @ (w * h)
    matrix = G.copy()
    matrix[range(K, 2 * K), range(K, 2 * K)] += 1 / (R * beta * pi * cv * v)
    if math.isfinite(finite_p):
        matrix[range(K), range(K)] += 1 / (finite_p * R * pi * v)
        th = np.linalg.solve(matrix, b)
    else:
        schur = matrix[:K, :K] - matrix[:K, K:] @ np.linalg.solve(matrix[K:, K:], matrix[K:, :K])
        rhs = b[:K] - matrix[:K, K:] @ np.linalg.solve(matrix[K:, K:], b[K:])
        m = np.linalg.pinv(schur, rcond=1e-10, hermitian=True) @ rhs
        th = np.append(m, np.linalg.solve(matrix[K:, K:], b[K:] - matrix[K:, :K] @ m))
    m, theta, ck = th[:K], th[K:], th @ functions
    eth = slopes @ (w * (h - ck))
    base = hh + Delta + ck**2 - 2 * ck * h - 2 * (psi @ mu1) * h1
    upper = np.triu_indices(K)

    def derivative(dV1h, dLam, size=1e-5):
        scale = size * np.abs(V1h).max() / max(np.abs(dV1h).max(), np.abs(dLam).max(), 1e-300)
        ends = [
            step_resolvent(V1h + s * scale * dV1h, lam + V2h + s * scale * dLam, c, pi, beta)
            for s in (1, -1)
        ]
        return [(ends[0][i] - ends[1][i]) / (2 * scale) for i in (1, 2)]

    def response(E2):
        w2 = weight * E2 / (1 + Vk) ** 2
        return R * pairs(w2), R * mus @ w2

    def unpack(x):
        Q1 = np.zeros((K, K))
        Q1[upper] = x[: len(upper[0])]
        return Q1 + Q1.T - np.diag(Q1.diagonal()), x[len(upper[0]) :]

    def variance(Q1, q2):
        return np.einsum("gk,hk,gh->k", mu1, mu1, Q1) + q2 @ mus

    def image(Q1h, q2h):
        dV1, dV2 = derivative(Q1h, q2h)
        return np.append(-dV1[upper], -dV2)

    Q1h, q2h = response(base)
    Q1h = Q1h + R**2 * beta * np.outer(epsi, epsi)
    q2h = q2h + R**2 * beta * cv * eth**2
    if math.isfinite(finite_p):
        q2h = q2h + m**2 / (finite_p * pi**2 * v**2)
    start = image(Q1h, q2h)
    columns = [image(*response(variance(*unpack(e)))) for e in np.eye(len(start))]
    Q1, q2 = unpack(np.linalg.solve(np.eye(len(start)) - np.array(columns).T, start))
    E2 = base + variance(Q1, q2)
    return {
        "risk": weight @ E2 - Delta, "train_risk": weight @ (E2 / (1 + Vk) ** 2),
        "m": m, "theta": theta, "psi": psi, "Q1": Q1, "q2": q2, "V1": V1, "V2": V2,
    }  # fmt: skip


# giant_step: logistic loss (section 7)


def logistic_prox(y, w0, V):
    """f minimising log(1 + exp(-y f)) + (f - w0)^2/(2 V), by safeguarded Newton steps."""
    low, high = w0 - V, w0 + V
    f = w0
    for _ in range(100):
        force = (f - w0) / V - y * special.expit(-y * f)
        low, high = np.where(force < 0, f, low), np.where(force < 0, high, f)
        curvature = 1 / V + special.expit(f) * special.expit(-f)
        step = f - force / curvature
        f = np.where((step > low) & (step < high), step, (low + high) / 2)
        if np.abs(force).max() < 1e-13:
            break
    return f


def step_logistic(
    activation, changes, *, alpha, beta, lam, r, c, gamma, damping=0.5, tol=1e-12, nodes=(28, 30)
):
    """Class error and training loss for one group and labels that turn at given arguments.

    The label is -1 before the first of `changes`, which are the zeros of the target. Averages over
    omega are split there, and over xi by Gauss's rule.
    """
    R, rho = alpha / beta, math.sqrt(1 - gamma**2)
    kappa = np.arange(-8.0, 8.01, 0.25)
    weight = np.exp(-(kappa**2) / 2)
    weight /= weight.sum()
    mu0, mu1, mus, _ = np.array([step_features(activation, r * k, c) for k in kappa]).T
    x, wx = np.polynomial.legendre.leggauss(nodes[0])
    xi, wxi = np.polynomial.hermite_e.hermegauss(nodes[1])
    omega, weights, label = [], [], []
    for k in kappa:
        ends = np.clip([-8.0, *((np.asarray(changes) - gamma * k) / rho), 8.0], -8.0, 8.0)
        half = np.diff(ends)[:, None] / 2
        points = ends[:-1, None] + half * (1 + x)
        omega.append(points.ravel())
        weights.append((half * wx * np.exp(-(points**2) / 2)).ravel() / math.sqrt(2 * math.pi))
        label.append(np.repeat((-1.0) ** np.arange(len(half) - 1, -1, -1), len(x)))
    omega, y = np.array(omega)[:, :, None], np.array(label)[:, :, None]
    w3 = weight[:, None, None] * np.array(weights)[:, :, None] * (wxi / wxi.sum())
    m = theta = psi = 0.1
    V1h, V2h, Q1, q2, v = R * mu1**2 @ weight, R * mus @ weight, 1.0, 1.0, 1 / lam

    def average(factor, values):
        return np.sum(factor[:, None, None] * values * w3)

    one = np.ones_like(kappa)
    for _ in range(3000):
        (v,), ((V1,),), (V2,) = step_resolvent(np.array([[V1h]]), [lam + V2h], [c], [1.0], beta)
        Vk = (mu1**2 * V1 + mus * V2)[:, None, None]
        mean = mu0 * m + kappa * mu1 * theta
        spread = np.sqrt(mu1**2 * (Q1 - psi**2) + mus * q2)[:, None, None]
        w0 = mean[:, None, None] + (mu1 * psi)[:, None, None] * omega + spread * xi
        f = logistic_prox(y, w0, Vk)
        g = (f - w0) / Vk
        second = special.expit(f) * special.expit(-f)
        dg = -second / (1 + Vk * second)
        new1, new2 = -R * average(mu1**2, dg), -R * average(mus, dg)
        q1h, q2h = R * average(mu1**2, g**2), R * average(mus, g**2)
        epsi = average(mu1, omega * g) - psi * average(mu1**2, dg)
        B = -average(kappa**2 * mu1**2, dg)
        full = average(kappa * mu1, g) + B * theta
        kvv, kap = beta * c * v, beta * V1
        new_theta = R * kvv * full / (1 + R * kvv * B)
        eth = full - B * new_theta
        hats = q1h + R**2 * beta * epsi**2, q2h + R**2 * beta * c * eth**2
        size = 1e-6 * V1h / max(hats)
        ends = [
            step_resolvent(
                np.array([[V1h + s * size * hats[0]]]), [lam + V2h + s * size * hats[1]], [c],
                [1.0], beta,
            )
            for s in (1, -1)
        ]  # fmt: skip
        new = np.array(
            [
                m - average(mu0, g) / average(mu0**2, dg),
                new_theta,
                R * kap * epsi,
                new1,
                new2,
                -(ends[0][1].item() - ends[1][1].item()) / (2 * size),
                -(ends[0][2].item() - ends[1][2].item()) / (2 * size),
            ]
        )
        old = np.array([m, theta, psi, V1h, V2h, Q1, q2])
        m, theta, psi, V1h, V2h, Q1, q2 = damping * old + (1 - damping) * new
        if np.abs(new / old - 1).max() < tol:
            break
    output = (mu0 * m + kappa * mu1 * theta)[:, None, None] + (mu1 * psi)[:, None, None] * omega
    wrong = special.ndtr(-y * output / spread)
    return np.sum(wrong * w3), average(one, np.logaddexp(0, -y * f))


# giant_step: given weights (section 6.3)


def step_from_weights(activation, target, W, v, w_star, *, alpha, lam, Delta=0.0):
    """Risk and training error for given weights: the p x p matrices as they stand."""
    p, d = W.shape
    R, gamma = alpha * d / p, float(v @ w_star)
    zeta = (w_star - gamma * v) / math.sqrt(1 - gamma**2)
    r = np.mean(W @ v)
    s, B = W @ v - r, W - np.outer(W @ v, v)
    norms = (B**2).sum(axis=1)
    c = norms.mean()
    kappa, weight, mu, (h, h1, hh) = step_tables(activation, target, [r], [c], gamma)
    mu0, mu1, mus, mu0c = mu[:, 0]
    V1h, V2h, gram = R * weight @ mu1**2, R * weight @ mus, B @ B.T
    values = np.linalg.eigvalsh(gram)
    for _ in range(20000):
        S = lam + V2h + V1h * values
        Vk = mu1**2 * np.mean(values / S) + mus * np.mean(1 / S)
        new = R * (weight / (1 + Vk)) @ np.array([mu1**2, mus]).T
        moved = np.abs(new - [V1h, V2h]).max() / lam
        V1h, V2h = (np.array([V1h, V2h]) + new) / 2
        if moved < 1e-15:
            break
    inverse = np.linalg.inv((lam + V2h) * np.eye(p) + V1h * gram)
    directions = np.array([np.ones(p), s, norms - c, B @ zeta]).T
    K = directions.T @ inverse @ directions
    F, w = np.array([mu0, kappa * mu1, mu0c]), weight / (1 + Vk)
    G, epsi = (F * w) @ F.T, w @ (mu1 * h1)
    th = np.linalg.solve(
        np.eye(3) + R * K[:3, :3] @ G, R * (K[:3, :3] @ (F @ (w * h)) + K[:3, 3] * epsi)
    )
    e = np.append(F @ (w * (h - th @ F)), epsi)
    psi, ck = R * K[3] @ e, th @ F
    # a/sqrt p = R (S^{-1} directions e), and the fluctuating part from E2.
    a = R * inverse @ directions @ e
    base = hh + Delta + ck**2 - 2 * ck * h - 2 * mu1 * psi * h1
    trace = np.array(
        [
            [np.trace(inverse @ A @ inverse @ C) / p for C in (gram, np.eye(p))]
            for A in (gram, np.eye(p))
        ]
    )
    w2 = R * weight / (1 + Vk) ** 2
    shapes = np.array([mu1**2, mus])
    response = trace @ (shapes * w2) @ shapes.T
    start = trace @ shapes @ (w2 * base) + [a @ gram @ a, a @ a]
    q = np.linalg.solve(np.eye(2) - response, start)
    E2 = base + q @ shapes
    return weight @ E2 - Delta, weight @ (E2 / (1 + Vk) ** 2)


# giant_step: training (section 1)


def step_first_layer(W, X, y, eta, A, activation):
    """The first layer after the step, and g = X^T (y - f0)/n0."""
    s, ds = STEP_ACTIVATIONS[activation]
    fields = X @ W.T
    error = y - s(fields) @ A / len(W)
    gradient = (ds(fields) * error[:, None]).T @ X / len(X)
    return W + eta * A[:, None] * gradient, error @ X / len(X)


def step_ridge(W, X, y, lam, activation):
    """The readout a, from the normal equations of the smaller side, and the training error."""
    p = len(W)
    phi = STEP_ACTIVATIONS[activation][0](X @ W.T) / math.sqrt(p)
    if len(X) >= p:
        a = np.linalg.solve(phi.T @ phi + lam * np.eye(p), phi.T @ y)
    else:
        a = phi.T @ np.linalg.solve(phi @ phi.T + lam * np.eye(len(X)), y)
    return a, np.mean((y - phi @ a) ** 2)


def step_output(W, a, X, activation):
    """f(x) for each row of X."""
    return STEP_ACTIVATIONS[activation][0](X @ W.T) @ a / math.sqrt(len(W))
