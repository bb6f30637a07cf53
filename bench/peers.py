"""What a user would run instead of the package, written plainly and competently.

The networks of theory/sgd.md are quadratic with a = 1/p, a* = 1/p* and batch 1 unless a docstring
says otherwise.
"""

import math

import numba
import numpy as np
from scipy import integrate, linalg, optimize, special

# sgd


def chain_numpy(replicas, dim, p, p_star, steps, rng, lr):
    """Peer of op.sgd.simulate(method="chain"): section 8 with P = I, vectorised over replicas.

    As one writes it down: the replica axis first, a batched Cholesky factor, einsum. Starts from
    random rows of unit variance. Returns M (replicas, p, p*) and Q (replicas, p, p).
    """
    W = rng.standard_normal((replicas, p, min(dim, 200)))
    Qperp = np.einsum("rki,rmi->rkm", W, W) / W.shape[2]
    Bm = rng.standard_normal((replicas, p, p_star)) / math.sqrt(dim)
    for _ in range(steps):
        L = np.linalg.cholesky(Qperp)
        x_star = rng.standard_normal((replicas, p_star))
        x = rng.standard_normal((replicas, p))
        chi2 = rng.chisquare(dim - p - p_star, replicas)
        u = np.einsum("rkj,rj->rk", L, x)
        fields = np.einsum("rki,ri->rk", Bm, x_star) + u
        e = np.mean(x_star**2, axis=1) - np.mean(fields**2, axis=1)
        c = (2 * lr / (dim * p)) * e[:, None] * fields
        norm2 = np.sum(x**2, axis=1) + chi2
        Bm = Bm + np.einsum("rk,ri->rki", c, x_star)
        cross = np.einsum("rk,rj->rkj", c, u)
        square = np.einsum("r,rk,rj->rkj", norm2, c, c)
        Qperp = Qperp + cross + cross.transpose(0, 2, 1) + square
    return Bm, Qperp + np.einsum("rki,rmi->rkm", Bm, Bm)


def chain_numpy_tuned(replicas, dim, p, p_star, steps, rng, lr):
    """The strongest NumPy peer that we could write: chain_numpy with the replica axis last.

    It has its own Cholesky loop, whose operations are contiguous over a thousand replicas.
    """
    degrees = dim - p - p_star
    Bm = rng.standard_normal((p, p_star, replicas)) / math.sqrt(dim)
    T = np.zeros((p, p, replicas))
    for j in range(p):
        T[j, j] = np.sqrt(rng.chisquare(dim - p_star - j, replicas) / dim)
        T[j + 1 :, j] = rng.standard_normal((p - j - 1, replicas)) / math.sqrt(dim)
    Qperp = np.einsum("kjr,mjr->kmr", T, T)
    L = np.zeros_like(Qperp)
    for _ in range(steps):
        for j in range(p):
            column = Qperp[j:, j] - np.einsum("kir,ir->kr", L[j:, :j], L[j, :j])
            L[j:, j] = column / np.sqrt(column[0])
        x_star = rng.standard_normal((p_star, replicas))
        x = rng.standard_normal((p, replicas))
        u = np.einsum("kjr,jr->kr", L, x)
        fields = np.einsum("kir,ir->kr", Bm, x_star) + u
        e = np.mean(x_star**2, axis=0) - np.mean(fields**2, axis=0)
        c = (2 * lr / (dim * p)) * e * fields
        u += 0.5 * (np.sum(x**2, axis=0) + rng.chisquare(degrees, replicas)) * c
        half = c[:, None] * u
        Qperp += half
        Qperp += half.transpose(1, 0, 2)
        Bm += c[:, None] * x_star
    Q = Qperp + np.einsum("kir,mir->kmr", Bm, Bm)
    return Bm.transpose(2, 0, 1), Q.transpose(2, 0, 1)


def direct_numpy(W, W_star, steps, rng, lr):
    """Peer of op.sgd.simulate(method="direct"), one replica; returns the final W (p, N)."""
    p, dim = W.shape
    p_star = len(W_star)
    both = np.vstack([W, W_star])
    for _ in range(steps):
        x = rng.standard_normal(dim)
        fields = both @ x / math.sqrt(dim)
        e = np.sum(fields[p:] ** 2) / p_star - np.sum(fields[:p] ** 2) / p
        c = 2 * lr * e / (p * math.sqrt(dim)) * fields[:p]
        both[:p] += c[:, None] * x
    return both[:p]


@numba.njit(fastmath=False)
def direct_numba(W, W_star, steps, rng, lr):
    """Peer of op.sgd.simulate(method="direct"): the same in compiled loops.

    rng is a numpy.random.Generator.
    """
    p, dim = W.shape
    p_star = len(W_star)
    W = W.copy()
    x = np.empty(dim)
    fields = np.empty(p)
    for _ in range(steps):
        for i in range(dim):
            x[i] = rng.standard_normal()
        e = 0.0
        for r in range(p_star):
            field = 0.0
            for i in range(dim):
                field += W_star[r, i] * x[i]
            e += field**2 / (p_star * dim)
        for k in range(p):
            field = 0.0
            for i in range(dim):
                field += W[k, i] * x[i]
            fields[k] = field
            e -= field**2 / (p * dim)
        for k in range(p):
            c = 2 * lr * e / (p * dim) * fields[k]
            for i in range(dim):
                W[k, i] += c * x[i]
    return W


@numba.njit(fastmath=False)
def direct_numba_blas(W, W_star, steps, rng, lr):
    """The strongest numba peer that we could write: direct_numba with the fields by np.dot."""
    p, dim = W.shape
    p_star = len(W_star)
    W = W.copy()
    x = np.empty(dim)
    for _ in range(steps):
        for i in range(dim):
            x[i] = rng.standard_normal()
        fields = np.dot(W, x)
        fields_star = np.dot(W_star, x)
        e = 0.0
        for r in range(p_star):
            e += fields_star[r] ** 2 / (p_star * dim)
        for k in range(p):
            e -= fields[k] ** 2 / (p * dim)
        for k in range(p):
            c = 2 * lr * e / (p * dim) * fields[k]
            for i in range(dim):
                W[k, i] += c * x[i]
    return W


def _solve(rhs, M, Q, t, rtol, atol):
    p, p_star = M.shape
    start = np.concatenate([M.ravel(), Q.ravel()])
    answer = integrate.solve_ivp(
        rhs, (0.0, t[-1]), start, method="DOP853", t_eval=t, rtol=rtol, atol=atol
    )
    M, Q = np.split(answer.y.T, [p * p_star], axis=1)
    return M.reshape(-1, p, p_star), Q.reshape(-1, p, p)


def ode_scipy(M, Q, P, a, a_star, t, lr, *, rtol=1e-9, atol=1e-12):
    """Peer of op.sgd.ode: section 2 as it stands, in the joint covariance, under SciPy's DOP853.

    Returns M (T, p, p*) and Q (T, p, p).
    """
    p, p_star = M.shape
    size = M.size
    C = np.diag(np.concatenate([-a, a_star]))
    A = np.diag(a)

    def rhs(_, state):
        M, Q = state[:size].reshape(p, p_star), state[size:].reshape(p, p)
        omega = np.block([[Q, M], [M.T, P]])
        product = C @ omega
        tau, kappa = np.trace(product), np.trace(product @ product)
        X = omega[:p] @ product
        G, H = X[:, :p], X @ C @ omega[:p].T
        V = (tau**2 + 2 * kappa) * Q + 4 * tau * G + 8 * H
        dM = 2 * lr * A @ (tau * M + 2 * X[:, p:])
        F = 2 * lr * A @ (tau * Q + 2 * G)
        dQ = F + F.T + 4 * lr**2 * A @ V @ A
        return np.concatenate([dM.ravel(), dQ.ravel()])

    return _solve(rhs, M, Q, t, rtol, atol)


def ode_scipy_tuned(M, Q, P, a, a_star, t, lr, *, rtol=1e-9, atol=1e-12):
    """The strongest SciPy peer that we could write: ode_scipy in the blocks of the covariance."""
    p, p_star = M.shape
    size = M.size
    outer = 4 * lr**2 * np.outer(a, a)
    step = 2 * lr * a[:, None]
    teacher = P * a_star
    teacher_trace, teacher_kappa = np.trace(teacher), np.sum(teacher * teacher.T)

    def rhs(_, state):
        M, Q = state[:size].reshape(p, p_star), state[size:].reshape(p, p)
        MA, QA = M * a_star, Q * a
        tau = teacher_trace - np.trace(QA)
        kappa = teacher_kappa - 2 * np.sum(a[:, None] * M * MA) + np.sum(QA * QA.T)
        X = MA @ P - QA @ M
        G = MA @ M.T - QA @ Q
        H = X @ MA.T - G @ QA.T
        F = step * (tau * Q + 2 * G)
        V = (tau**2 + 2 * kappa) * Q + 4 * tau * G + 8 * H
        return np.concatenate([(step * (tau * M + 2 * X)).ravel(), (F + F.T + outer * V).ravel()])

    return _solve(rhs, M, Q, t, rtol, atol)


def normals_numpy(n, seed):
    """Peer of the package's normal generator: n standard normals in float64."""
    return np.random.default_rng(seed).standard_normal(n)


# population_flow


def flow_scipy(W0, mu, t, kappa=0.5, rtol=1e-8):
    """Peer of op.population_flow.flow: the flow of W (d, m) under SciPy's DOP853, teacher diag(mu).

    The right-hand side multiplies in the cheaper of the two orders, so that nothing larger than W
    is formed for m <= d. Returns the loss (T,), from ||S||^2 = ||W^T W||^2.
    """
    d, m = W0.shape
    column, total = mu[:, None], np.sum(mu)

    def rhs(_, state):
        W = state.reshape(d, m)
        cubic = W @ (W.T @ W) if m <= d else (W @ W.T) @ W
        shift = kappa * (state @ state - total)
        return ((column - shift) * W - cubic).ravel()

    answer = integrate.solve_ivp(
        rhs, (0.0, t[-1]), W0.ravel(), method="DOP853", t_eval=t, rtol=rtol, atol=rtol * 1e-2
    )
    loss = []
    for state in answer.y.T:
        W = state.reshape(d, m)
        gram = W.T @ W if m <= d else W @ W.T
        cross = np.sum(W**2, axis=1) @ mu
        loss.append(np.sum(gram**2) - 2 * cross + mu @ mu + kappa * (state @ state - total) ** 2)
    return np.array(loss)


def limit_euler(gamma, gamma_star, t_end, step=1e-5, records=200):
    """Peer of op.population_flow.limit for orthonormal families: the scheme of the paper's authors.

    Explicit Euler in NumPy scalars, in the variables in which the paper states the limit (section
    4.1 of docs/papers/population_flow.md: u = 1 + 2 s0 k0 and J = 1 + z), with a fixed step in the
    paper's time gamma* tau/2; t_end is tau itself. Observables at equally spaced records. Returns
    tau, ||S - S*||^2/d and tr(S S*)/d.
    """
    s0, both = gamma_star / gamma, gamma + gamma_star
    curve = _angle_quadrature(gamma, gamma_star)
    dtau = 2 * step / gamma_star
    steps = round(t_end / dtau)
    every = max(1, steps // records)
    u = J = np.float64(1.0)
    rows = []
    for i in range(steps + 1):
        growth = np.exp(2 * dtau * i)
        z = J - 1
        linear = 1 + z * both
        root = np.sqrt(linear**2 - 4 * (1 + z) * z * gamma * gamma_star)
        slope = 2 * gamma * gamma_star / (linear + root)
        phi = 0.5 * np.log(1 + slope * (growth - J) / gamma) - 0.5 * np.log(u)
        eps = np.exp(-2 * phi)
        if i % every == 0:
            rows.append((i * dtau, *curve(s0 * eps / u, 1 / growth, z / growth)))
        J += 2 * s0 * dtau * eps * (growth - J) / u
        u += 2 * s0 * dtau * eps
    return np.array(rows).T


def limit_euler_tuned(gamma, gamma_star, t_end, step=1e-5, records=200):
    """The strongest Euler peer that we could write: limit_euler on floats, in bounded variables.

    With k1 exp(-2 tau) instead of k1, its error is a hundred times smaller at the same step, too.
    """
    s0, both, product = gamma_star / gamma, gamma + gamma_star, gamma * gamma_star
    curve = _angle_quadrature(gamma, gamma_star)
    dtau = 2 * step / gamma_star
    steps = round(t_end / dtau)
    every = max(1, steps // records)
    shrink = math.exp(-2 * dtau)
    k0 = kap = 0.0
    decay = 1.0
    rows = []
    for i in range(steps + 1):
        u = 1 + 2 * s0 * k0
        excess = 2 * s0 * (kap - k0 * decay) / u
        z = excess / decay
        linear = 1 + z * both
        ratio = -2 * product / (linear + math.sqrt(linear * linear - 4 * (1 + z) * z * product))
        eps = gamma_star * u / (s0 * (gamma + z * ratio + ratio - ratio / decay))
        if i % every == 0:
            rows.append((i * dtau, *curve(s0 * eps / u, decay, excess)))
        k0 += dtau * eps
        kap += dtau * (eps - 2 * kap)
        decay *= shrink
    return np.array(rows).T


def _angle_quadrature(gamma, gamma_star):
    """Function of (s0 eps/u, exp(-2 tau), z exp(-2 tau)) that returns distance2 and overlap."""
    both, product = gamma + gamma_star, gamma * gamma_star
    root = 2 * math.sqrt(product * (1 - gamma) * (1 - gamma_star))
    high = both - 2 * product + root
    low = (gamma - gamma_star) ** 2 / high
    sigmoid = 1 / (1 + np.exp(-np.linspace(-45, 45, 1200)))
    angle = math.pi * sigmoid
    c = low + (high - low) * np.sin(angle / 2) ** 2
    weight = ((high - low) * np.sin(angle)) ** 2 / (8 * math.pi * c * (1 - c))
    weight *= angle * (1 - sigmoid) * 90 / 1199
    full = max(0.0, both - 1)
    missed, null = max(0.0, gamma_star - gamma), max(0.0, gamma - gamma_star)

    def curve(scale, decay, excess):
        total = scale / (decay + excess * c)
        teacher, other = total * c, total * decay * (1 - c)
        one = scale / (decay + excess)
        blocks = (1 - teacher) ** 2 + 2 * teacher * other + other**2
        distance2 = blocks @ weight + full * (1 - one) ** 2 + missed + null * scale**2
        return distance2, teacher @ weight + full * one

    return curve


# hessian


class HessianNumpy:
    """Peer of op.hessian.empirical: the Hessian on samples as one writes it down, a = 1/p.

    Fields and errors are computed once; a product with a block of vectors is two calls of GEMM with
    the inputs, and array expressions for what is between them.
    """

    def __init__(self, W, X, y):
        self.X, self.root = X, math.sqrt(X.shape[1])
        self.fields = X @ W.T / self.root
        self.error = y - np.mean(self.fields**2, axis=1)
        self.shape = W.shape

    def __matmul__(self, vectors):
        p, dim = self.shape
        count, samples = vectors.shape[1], len(self.X)
        V = vectors.T.reshape(count * p, dim)
        u = (self.X @ V.T / self.root).reshape(samples, count, p)
        seen = np.einsum("ik,ibk->ib", self.fields, u) * (2 / p)
        weights = seen[:, :, None] * self.fields[:, None, :] - self.error[:, None, None] * u
        out = weights.reshape(samples, count * p).T @ self.X
        return (2 * self.root / (p * samples) * out).reshape(count, p * dim).T


def hessian_curvlinops(W, X, y):
    """Peer of op.hessian.empirical: curvlinops' Hessian of the same loss, by autograd in torch."""
    import torch
    from curvlinops import HessianLinearOperator

    dim = W.shape[1]

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(torch.tensor(W))

        def forward(self, x):
            return ((x @ self.W.T) ** 2).mean(dim=1, keepdim=True) / dim

    class Loss(torch.nn.MSELoss):
        """N/2 times the mean square."""

        def forward(self, prediction, target):
            return super().forward(prediction, target) * (dim / 2)

    network = Network()
    data = [(torch.tensor(X), torch.tensor(y)[:, None])]
    operator = HessianLinearOperator(
        network, Loss(), list(network.parameters()), data, check_deterministic=False
    )
    return operator.to_scipy() if hasattr(operator, "to_scipy") else operator


def hessian_dense(W, W_star):
    """Peer of op.hessian.population: eigenvalues of the whole matrix, a = 1/p and a* = 1/p*."""
    p, dim = W.shape
    student, teacher = W / math.sqrt(dim), W_star / math.sqrt(dim)
    difference = teacher.T @ teacher / len(teacher) - student.T @ student / p
    gram = student @ student.T
    blocks = np.einsum("kl,ij->kilj", gram, np.eye(dim))
    blocks += np.einsum("ki,lj->kilj", student, student)
    blocks += np.einsum("li,kj->kilj", student, student)
    blocks *= 4 / p**2
    shared = (2 / p) * (np.trace(difference) * np.eye(dim) + 2 * difference)
    for k in range(p):
        blocks[k, :, k] -= shared
    return np.linalg.eigvalsh(blocks.reshape(p * dim, p * dim))


# empirical_flow


def long_time_scipy(alpha, kappa, kappa_star, noise_var, ridge):
    """Peer of op.empirical_flow.long_time for a ridge > 0 and one solution; returns the risk.

    As one writes it down: the cubic by np.roots at every abscissa, integrals by quad, c and
    sigma^2 by nested brentq. Tolerances are loose: the risk comes out to about 1e-4.
    """
    top_risk = 2 * (1 + 1 / kappa_star)
    accuracy = {"epsabs": 1e-3, "epsrel": 1e-3, "limit": 100}

    def resolvent(x, s2):
        k = kappa_star
        roots = np.roots([s2, -(x + s2 * k), k * x + 1 - k, -k])
        return roots[np.argmax(roots.imag)]

    def edges(s2):
        k, z = kappa_star, np.polynomial.Polynomial([0, 1])
        A, B, C, D = s2, -(z + s2 * k), k * z + 1 - k, -k
        terms = 18 * A * B * C * D - 4 * B**3 * D + B**2 * C**2 - 4 * A * C**3
        roots = (terms - 27 * A**2 * D**2).roots()
        return np.sort(roots[np.abs(roots.imag) < 1e-9 * np.abs(roots)].real)

    def integral(f, ends, s2, low=-math.inf, high=math.inf):
        """Of f(x, g) rho, with the angle that makes the edges smooth."""
        total = 0.0
        for start, stop in ends.reshape(-1, 2):
            left, right = max(start, low), min(stop, high)
            if left >= right:
                continue
            middle, half = (start + stop) / 2, (stop - start) / 2

            def integrand(angle, middle=middle, half=half):
                x = middle - half * math.cos(angle)
                g = resolvent(x, s2)
                return f(x, g) * g.imag / math.pi * half * math.sin(angle)

            angles = [math.acos(np.clip((middle - x) / half, -1, 1)) for x in (left, right)]
            total += integrate.quad(integrand, *angles, **accuracy)[0]
        return total

    def risk(s2):
        ends = edges(s2)
        quantile = -math.inf
        if kappa < 1:
            quantile = optimize.brentq(
                lambda x: integral(lambda *_: 1.0, ends, s2, low=x) - kappa,
                ends[0],
                ends[-1],
                xtol=1e-4,
            )

        def response(tau):
            return integral(lambda x, g: (x - tau) * g.real, ends, s2, low=max(tau, quantile))

        c = optimize.brentq(
            lambda c: c - 1 + response(ridge / c) / alpha, ridge / ends[-1], 1.0, xtol=1e-4
        )
        tau = ridge / c
        cut = max(tau, quantile)
        lost = integral(lambda x, _: x**2, ends, s2, high=cut)
        kept = integral(lambda *_: tau**2, ends, s2, low=cut)
        return 2 * (lost + kept - s2 + 4 * s2 * response(tau))

    def excess(log):
        return (risk(math.exp(log)) + noise_var) / (4 * alpha * math.exp(log)) - 1

    low = max(noise_var / (4 * alpha), 1e-6)
    high = (top_risk + noise_var) / (4 * alpha)
    log = optimize.brentq(excess, math.log(low), math.log(2 * high), xtol=1e-4)
    return 4 * alpha * math.exp(log) - noise_var


def network_gradient_numpy(W, X, y, ridge):
    """Peer of the gradient of op.empirical_flow for the network itself, without n x d^2 arrays."""
    samples, dim = X.shape
    Z = X @ W
    r = (np.sum(Z**2, axis=1) - np.sum(W**2)) / math.sqrt(dim) - y
    slope = X.T @ (r[:, None] * Z) - np.sum(r) * W
    return math.sqrt(dim) / (2 * samples) * slope + ridge * W


def goe_gradient_numpy(A, y, ridge):
    """The gradient with dense matrices A (n, d, d), as one writes it down."""
    samples, dim, _ = A.shape

    def gradient(W):
        r = np.einsum("nij,ij->n", A, W @ W.T) - y
        G = np.einsum("n,nij->ij", r, A) * (dim / (2 * samples))
        return G @ W + ridge * W

    return gradient


def goe_gradient_torch(A, y, ridge):
    """Peer of the gradient with GOE sensing: dense matrices A (n, d, d) and einsum in torch."""
    import torch

    matrices, labels = torch.from_numpy(A), torch.from_numpy(y)
    samples, dim, _ = A.shape

    def gradient(W):
        W = torch.from_numpy(W)
        r = torch.einsum("nij,ij->n", matrices, W @ W.T) - labels
        G = torch.einsum("n,nij->ij", r, matrices) * (dim / (2 * samples))
        return (G @ W + ridge * W).numpy()

    return gradient


# random_features: the second layer learned by SGD on inputs of its own


def features_gemv(W, B, a, lr, steps, rng):
    """SGD step by step, two products with vectors each: the naive loop; erf, one teacher unit."""
    K, N = W.shape
    for _ in range(steps):
        x = rng.standard_normal(N) / math.sqrt(2 * N)
        phi = special.erf(W @ x) / math.sqrt(K)
        a = a - lr * (phi @ a - special.erf(B @ x)[0]) * phi
    return a


def features_blocked(W, B, a, lr, steps, rng, block=256):
    """The same in blocks, each a product of matrices and a triangular solve."""
    K, N = W.shape
    for first in range(0, steps, block):
        X = rng.standard_normal((min(block, steps - first), N)) / math.sqrt(2 * N)
        phi = special.erf(X @ W.T) / math.sqrt(K)
        y = special.erf(X @ B.T)[:, 0]
        L = np.tril(phi @ phi.T, -1) * lr
        e = linalg.solve_triangular(L, phi @ a - y, lower=True, unit_diagonal=True)
        a = a - lr * (phi.T @ e)
    return a


# giant_step


def _hermite_averages():
    """The functions of kappa of theory/giant_step.md, section 3: tanh on sin, nested 19 nodes."""
    z, w = np.polynomial.hermite_e.hermegauss(19)
    w = w / w.sum()

    def student(k, c):
        s = np.tanh(k + math.sqrt(c) * z)
        mu0, mu1 = w @ s, w @ (s * z) / math.sqrt(c)
        return mu0, mu1, max(w @ s**2 - mu0**2 - c * mu1**2, 0.0)

    def target(k, gamma):
        y = np.sin(gamma * k + math.sqrt(1 - gamma**2) * z)
        return w @ y, w @ (y * z), w @ y**2

    return student, target


def giant_step_scipy(alpha, beta, ridge, r, c, gamma, *, dim=1000, tol=1e-4, seed=0):
    """Peer of op.giant_step.solve, tanh on sin: the method of the authors' notebooks.

    One sampled spectrum, an adaptive integral for every conjugate parameter, and all parameters
    iterated together with damping 1/2. Returns the risk.
    """
    rng = np.random.default_rng(seed)
    p, R = int(beta * dim), alpha / beta
    W = rng.standard_normal((p, dim))
    W *= math.sqrt(c) / np.linalg.norm(W, axis=1, keepdims=True)
    bulk = W.copy()
    bulk[:, 0] = 0.0  # the first axis is v, the second zeta
    D, U = linalg.eigh(bulk @ bulk.T)
    F, H = (U.T @ W[:, 0]) ** 2, (U.T @ W[:, 1]) ** 2
    student, target = _hermite_averages()

    def mean(f):
        def integrand(k):
            return math.exp(-k * k / 2) / math.sqrt(2 * math.pi) * f(k)

        return integrate.quad(integrand, -8, 8, epsabs=1e-6, epsrel=1e-6)[0]

    m = theta = psi = 0.1
    V1, V2, Q1, q2 = 1.0, 1.0, 0.1, 0.1

    def variance(k):
        _, mu1, rest = student(r * k, c)
        return 1 + mu1**2 * V1 + rest * V2

    def rest_of_label(k):
        mu0, mu1, _ = student(r * k, c)
        return target(k, gamma)[0] - m * mu0 - theta * k * mu1

    def error(k):
        _, mu1, rest = student(r * k, c)
        h, h1, hh = target(k, gamma)
        fluctuation = mu1**2 * Q1 + rest * q2 - 2 * mu1 * psi * h1
        return hh - h**2 + rest_of_label(k) ** 2 + fluctuation

    while True:
        V1h = R * mean(lambda k: student(r * k, c)[1] ** 2 / variance(k))
        V2h = R * mean(lambda k: student(r * k, c)[2] / variance(k))
        Q1h = R * mean(lambda k: student(r * k, c)[1] ** 2 * error(k) / variance(k) ** 2)
        q2h = R * mean(lambda k: student(r * k, c)[2] * error(k) / variance(k) ** 2)
        epsi = mean(lambda k: student(r * k, c)[1] * target(k, gamma)[1] / variance(k))
        eth = mean(lambda k: k * student(r * k, c)[1] * rest_of_label(k) / variance(k))
        force = mean(lambda k: student(r * k, c)[0] * rest_of_label(k) / variance(k))
        stiffness = mean(lambda k: student(r * k, c)[0] ** 2 / variance(k))
        S = ridge + V2h + V1h * D
        signal = R**2 * (F * eth**2 + H * epsi**2) * p + (Q1h * D + q2h)
        new = np.array(
            [
                m + force / stiffness,
                R * np.sum(F / S) * eth,
                R * np.sum(H / S) * epsi,
                np.mean(D / S),
                np.mean(1 / S),
                np.mean(D / S**2 * signal),
                np.mean(signal / S**2),
            ]
        )
        old = np.array([m, theta, psi, V1, V2, Q1, q2])
        m, theta, psi, V1, V2, Q1, q2 = (old + new) / 2
        if np.abs(new - old).max() < tol:
            return mean(error)


def giant_step_numpy(d, p, n, n0, tests, eta, ridge, rng):
    """Peer of op.giant_step.simulate, tanh on sin: the whole experiment with large matrices."""
    W = rng.standard_normal((p, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    X = rng.standard_normal((n0, d))
    s = np.tanh(X @ W.T)
    error = np.sin(X[:, 0]) - s.mean(axis=1)
    W += eta / n0 * ((1 - s**2) * error[:, None]).T @ X
    X = rng.standard_normal((n, d))
    phi = np.tanh(X @ W.T) / math.sqrt(p)
    factor = linalg.cho_factor(phi.T @ phi + ridge * np.eye(p), check_finite=False)
    a = linalg.cho_solve(factor, phi.T @ np.sin(X[:, 0]))
    X = rng.standard_normal((tests, d))
    return np.mean((np.tanh(X @ W.T) @ a / math.sqrt(p) - np.sin(X[:, 0])) ** 2)
