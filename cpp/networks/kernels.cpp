#include "networks/kernels.hpp"

#include <algorithm>
#include <utility>

#include "math/gauss.hpp"

namespace overparam {

namespace {

constexpr double TWO_PI = 2.0 * M_PI;
// A conditional variance below this fraction of the variance is rounding.
constexpr double ROUNDING = 1e-11;
// Fields whose correlation is this close to one count as parallel.
constexpr double PARALLEL = 1e-12;

double safe_sqrt(double x) { return std::sqrt(std::max(x, 0.0)); }
double safe_asin(double x) { return std::asin(std::clamp(x, -1.0, 1.0)); }

// ---- ReLU: orthant probabilities and truncated moments
// ------------------------------------------- Everything is homogeneous in the scale of each field,
// so a field of zero variance gives zero and the rest can be written with correlations. `theta` is
// the unit step.

double correlation(double cab, double caa, double cbb) {
    const double scale = std::sqrt(caa * cbb);
    return scale > 0.0 ? std::clamp(cab / scale, -1.0, 1.0) : 0.0;
}

// E[theta(a) theta(b)]
double orthant2(double r) { return 0.25 + safe_asin(r) / TWO_PI; }

// Covariance of three fields.
struct Cov3 {
    double aa, ab, ac, bb, bc, cc;
};

// E[theta(a) theta(b) theta(c)]
double orthant3(const Cov3& k) {
    return 0.125 +
           (safe_asin(correlation(k.ab, k.aa, k.bb)) + safe_asin(correlation(k.ac, k.aa, k.cc)) +
            safe_asin(correlation(k.bc, k.bb, k.cc))) /
               (2.0 * TWO_PI);
}

// Density at zero of a centred Gaussian.
double density(double variance) { return 1.0 / std::sqrt(TWO_PI * variance); }

// E[a_+ theta(b)]
double relu_step(double caa, double cab, double cbb) {
    double r = 0.5 * safe_sqrt(caa);
    if (cbb > 0.0) r += 0.5 * cab / std::sqrt(cbb);
    return r / std::sqrt(TWO_PI);
}

// Covariance of x and y given that z = 0.
double given(double cxy, double cxz, double cyz, double czz) { return cxy - cxz * cyz / czz; }

// Variance of x given that z = 0; none where only rounding is left of it. What such a field does is
// then decided by the two terms that it enters, which are complementary.
double given(double cxx, double cxz, double czz) {
    const double v = cxx - cxz * cxz / czz;
    return v > ROUNDING * cxx ? v : 0.0;
}

// E[a_+ theta(b) theta(c)], by Gaussian integration by parts on a.
double relu_step_step(const Cov3& k) {
    double r = 0.0;
    if (k.aa > 0.0) {
        const double bb = given(k.bb, k.ab, k.aa), cc = given(k.cc, k.ac, k.aa);
        r += k.aa * density(k.aa) * orthant2(correlation(given(k.bc, k.ab, k.ac, k.aa), bb, cc));
    }
    if (k.bb > 0.0) {
        const double aa = given(k.aa, k.ab, k.bb), cc = given(k.cc, k.bc, k.bb);
        r += k.ab * density(k.bb) * orthant2(correlation(given(k.ac, k.ab, k.bc, k.bb), aa, cc));
    }
    if (k.cc > 0.0) {
        const double aa = given(k.aa, k.ac, k.cc), bb = given(k.bb, k.bc, k.cc);
        r += k.ac * density(k.cc) * orthant2(correlation(given(k.ab, k.ac, k.bc, k.cc), aa, bb));
    }
    return r;
}

// E[theta theta theta theta] for correlations r[4][4]. The block that couples {0,1} to {2,3} is
// scaled by t from 0 (a product of two planar probabilities) to 1; by Plackett's identity the
// derivative is a sum of planar densities times planar probabilities. Each term is integrated over
// the angle asin(t r_ij), which absorbs its inverse square root, with nodes clustered at the end t
// = 1, where the conditional correlation may approach +-1 like a square root.
double orthant4(const double r[4][4]) {
    static const Quadrature rule = gauss_legendre(40);
    double result = orthant2(r[0][1]) * orthant2(r[2][3]);
    for (int i = 0; i < 2; ++i) {
        for (int j = 2; j < 4; ++j) {
            const int k = 1 - i, l = 5 - j;
            const double rij = r[i][j];
            if (rij == 0.0) continue;
            const double end = safe_asin(rij);
            double integral = 0.0;
            for (std::size_t q = 0; q < rule.nodes.size(); ++q) {
                const double y = 1.0 - rule.nodes[q];
                const double t = std::sin(end * (1.0 - y * y * y)) / rij;
                // Correlation of fields k, l given that fields i, j are zero.
                const double c = t * rij, d = std::max(1.0 - c * c, 1e-300);
                const double ki = r[k][i], kj = t * r[k][j], li = t * r[l][i], lj = r[l][j];
                const double kk = 1.0 - (ki * ki - 2.0 * c * ki * kj + kj * kj) / d;
                const double ll = 1.0 - (li * li - 2.0 * c * li * lj + lj * lj) / d;
                const double kl = t * r[k][l] - (ki * li - c * (ki * lj + kj * li) + kj * lj) / d;
                const double rho = kk > ROUNDING && ll > ROUNDING ? kl / std::sqrt(kk * ll) : 0.0;
                integral += rule.weights[q] * 3.0 * y * y * orthant2(rho);
            }
            result += end * integral / TWO_PI;
        }
    }
    return result;
}

// Parallel fields switch on together: replaces each field by the first one that it is parallel to,
// and multiplies `scale` by the ratio for those among the first `values`. False if the average
// vanishes, because a field is zero or two are antiparallel.
bool merge_parallel(const double* c, Index n, Index* fields, int count, int values, double& scale) {
    for (int i = 0; i < count; ++i) {
        const double variance = c[fields[i] * n + fields[i]];
        if (variance <= 0.0) return false;
        for (int j = 0; j < i; ++j) {
            const double other = c[fields[j] * n + fields[j]];
            const double r = c[fields[i] * n + fields[j]] / std::sqrt(variance * other);
            if (r < -1.0 + PARALLEL) return false;
            if (r > 1.0 - PARALLEL) {
                if (i < values) scale *= std::sqrt(variance / other);
                fields[i] = fields[j];
                break;
            }
        }
    }
    return true;
}

// E[theta(u) theta(v) w_+ z_+] for fields of the covariance `c` no two of which are parallel,
// unless they are the same.
double relu_merged(const double* c, Index n, Index u, Index v, Index w, Index z) {
    const auto cov = [&](Index i, Index j) { return c[i * n + j]; };
    const auto cov3 = [&](Index i, Index j, Index k) {
        return Cov3{cov(i, i), cov(i, j), cov(i, k), cov(j, j), cov(j, k), cov(k, k)};
    };
    // w_+ and z_+ contain their own steps; keep only the steps that are not repeated.
    Index steps[2];
    int count = 0;
    if (u != w && u != z) steps[count++] = u;
    if (v != w && v != z && v != u) steps[count++] = v;

    if (w == z) {
        if (count == 0) return 0.5 * cov(w, w);
        const Index s = steps[0];
        const double ws = cov(w, s), ss = cov(s, s);
        if (count == 1) {
            return cov(w, w) * orthant2(correlation(ws, cov(w, w), ss)) +
                   ws * density(ss) * safe_sqrt(given(cov(w, w), ws, ss)) / std::sqrt(TWO_PI);
        }
        const Index q = steps[1];
        double r = cov(w, w) * orthant3(cov3(w, s, q));
        for (const auto& [x, y] : {std::pair<Index, Index>{s, q}, std::pair<Index, Index>{q, s}}) {
            const double xx = cov(x, x), wx = cov(w, x), xy = cov(x, y);
            r += wx * density(xx) *
                 relu_step(given(cov(w, w), wx, xx), given(cov(w, y), wx, xy, xx),
                           given(cov(y, y), xy, xx));
        }
        return r;
    }
    if (count == 0) return kernel_value_value(Activation::RELU, cov(w, w), cov(w, z), cov(z, z));

    // Integration by parts on z.
    const double zz = cov(z, z), wz = cov(w, z);
    const double ww_z = given(cov(w, w), wz, zz);
    if (count == 1) {
        const Index s = steps[0];
        const double zs = cov(z, s), ss = cov(s, s), ws = cov(w, s);
        return zz * density(zz) * relu_step(ww_z, given(ws, wz, zs, zz), given(ss, zs, zz)) +
               wz * orthant3(cov3(z, w, s)) +
               zs * density(ss) *
                   relu_step(given(cov(w, w), ws, ss), given(wz, ws, zs, ss), given(zz, zs, ss));
    }
    const Index field[4] = {u, v, w, z};
    double r4[4][4];
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            r4[i][j] = correlation(cov(field[i], field[j]), cov(field[i], field[i]),
                                   cov(field[j], field[j]));
        }
    }
    // E[w_+ theta(a) theta(b) | x = 0]
    const auto conditional = [&](Index a, Index b, Index x) {
        const double xx = cov(x, x), xw = cov(x, w), xa = cov(x, a), xb = cov(x, b);
        return relu_step_step({given(cov(w, w), xw, xx), given(cov(w, a), xw, xa, xx),
                               given(cov(w, b), xw, xb, xx), given(cov(a, a), xa, xx),
                               given(cov(a, b), xa, xb, xx), given(cov(b, b), xb, xx)});
    };
    return zz * density(zz) * conditional(u, v, z) + wz * orthant4(r4) +
           cov(z, u) * density(cov(u, u)) * conditional(z, v, u) +
           cov(z, v) * density(cov(v, v)) * conditional(z, u, v);
}

double relu_slope_slope_value_value(const double* c, Index n, Index u, Index v, Index w, Index z) {
    Index fields[4] = {w, z, u, v};
    double scale = 1.0;
    if (!merge_parallel(c, n, fields, 4, 2, scale)) return 0.0;
    return scale * relu_merged(c, n, fields[2], fields[3], fields[0], fields[1]);
}

// ---- erf: Saad and Solla (1995)
// --------------------------------------------------------------------

double erf_slope_slope_value_value(const double* c, Index n, Index u, Index v, Index w, Index z) {
    const auto cov = [&](Index i, Index j) { return c[i * n + j]; };
    const double c11 = 1.0 + cov(u, u), c22 = 1.0 + cov(v, v), c33 = 1.0 + cov(w, w),
                 c44 = 1.0 + cov(z, z);
    const double c12 = cov(u, v), c13 = cov(u, w), c14 = cov(u, z), c23 = cov(v, w),
                 c24 = cov(v, z), c34 = cov(w, z);
    const double l4 = c11 * c22 - c12 * c12;
    const double l0 =
        l4 * c34 - c23 * c24 * c11 - c13 * c14 * c22 + c12 * c13 * c24 + c12 * c14 * c23;
    const double l1 = l4 * c33 - c23 * c23 * c11 - c13 * c13 * c22 + 2.0 * c12 * c13 * c23;
    const double l2 = l4 * c44 - c24 * c24 * c11 - c14 * c14 * c22 + 2.0 * c12 * c14 * c24;
    return 4.0 / (M_PI * M_PI) / std::sqrt(l4) * safe_asin(l0 / std::sqrt(l1 * l2));
}

}  // namespace

// erf is odd and its derivative even, so odd averages vanish.

double kernel_value(Activation g, double cuu) {
    return g == Activation::ERF ? 0.0 : safe_sqrt(cuu / TWO_PI);
}

double kernel_slope_field(Activation g, double cuu, double cuv) {
    return g == Activation::ERF || cuu <= 0.0 ? 0.0 : cuv / std::sqrt(TWO_PI * cuu);
}

double kernel_slope_slope_value(Activation g, const double* c, Index n, Index u, Index v, Index w) {
    if (g == Activation::ERF) return 0.0;
    Index fields[3] = {w, u, v};
    double scale = 1.0;
    if (!merge_parallel(c, n, fields, 3, 1, scale)) return 0.0;
    w = fields[0], u = fields[1], v = fields[2];
    const double uu = c[u * n + u], vv = c[v * n + v], ww = c[w * n + w];
    if (u == w && v == w) return std::sqrt(ww / TWO_PI);
    if (u == w || v == w || u == v) {
        const Index s = u == w ? v : u;  // the step that w_+ does not contain
        return relu_step(ww, c[w * n + s], c[s * n + s]);
    }
    return relu_step_step({ww, c[w * n + u], c[w * n + v], uu, c[u * n + v], vv});
}

double kernel_value_value(Activation g, double cuu, double cuv, double cvv) {
    if (g == Activation::ERF) {
        return 2.0 / M_PI * safe_asin(cuv / std::sqrt((1.0 + cuu) * (1.0 + cvv)));
    }
    const double s = safe_sqrt(cuu * cvv - cuv * cuv);
    return (s + cuv * (M_PI_2 + std::atan2(cuv, s))) / TWO_PI;
}

double kernel_slope_slope(Activation g, double cuu, double cuv, double cvv) {
    if (g == Activation::ERF) {
        return 2.0 / M_PI / std::sqrt((1.0 + cuu) * (1.0 + cvv) - cuv * cuv);
    }
    if (cuu <= 0.0 || cvv <= 0.0) return 0.0;
    return orthant2(correlation(cuv, cuu, cvv));
}

double kernel_slope_field_value(Activation g, double cuu, double cuv, double cuw, double cvw,
                                double cww) {
    if (g == Activation::ERF) {
        const double l3 = (1.0 + cuu) * (1.0 + cww) - cuw * cuw;
        return 2.0 / M_PI * (cvw * (1.0 + cuu) - cuv * cuw) / ((1.0 + cuu) * std::sqrt(l3));
    }
    if (cuu <= 0.0) return 0.0;
    const double s = safe_sqrt(cuu * cww - cuw * cuw);
    return (cuv * s / cuu + cvw * (M_PI_2 + std::atan2(cuw, s))) / TWO_PI;
}

double kernel_slope_slope_value_value(Activation g, const double* cov, Index n, Index u, Index v,
                                      Index w, Index z) {
    return g == Activation::ERF ? erf_slope_slope_value_value(cov, n, u, v, w, z)
                                : relu_slope_slope_value_value(cov, n, u, v, w, z);
}

}  // namespace overparam
