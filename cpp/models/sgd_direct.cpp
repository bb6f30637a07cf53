#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.hpp"
#include "base/threads.hpp"
#include "models/sgd.hpp"

namespace overparam::sgd {

namespace {

constexpr Index BLOCK = 2 * LANES;  // normals of one call of the generator per eight counters

// Scalar products of `count` <= 4 rows with x, sharing the loads of x.
template <int COUNT>
void dots(const double* rows, Index stride, const double* x, double* out) {
    Lanes even[COUNT], odd[COUNT];
    for (int k = 0; k < COUNT; ++k) even[k] = odd[k] = lanes(0.0);
    for (Index j = 0; j < stride; j += BLOCK) {
        const Lanes x0 = load(x + j), x1 = load(x + j + LANES);
        for (int k = 0; k < COUNT; ++k) {
            even[k] += load(rows + k * stride + j) * x0;
            odd[k] += load(rows + k * stride + j + LANES) * x1;
        }
    }
    for (int k = 0; k < COUNT; ++k) out[k] = sum(even[k] + odd[k]);
}

void fields(const double* rows, Index count, Index stride, const double* x, double scale,
            double* out) {
    Index k = 0;
    for (; k + 4 <= count; k += 4) dots<4>(rows + k * stride, stride, x, out + k);
    for (; k < count; ++k) dots<1>(rows + k * stride, stride, x, out + k);
    for (k = 0; k < count; ++k) out[k] *= scale;
}

void add_multiple(double* row, double factor, const double* x, Index stride) {
    const Lanes f = lanes(factor);
    for (Index j = 0; j < stride; j += LANES) store(row + j, load(row + j) + f * load(x + j));
}

}  // namespace

Index padded(Index dim) { return (dim + BLOCK - 1) / BLOCK * BLOCK; }

void direct_advance(const Model& m, Index dim, const double* W_star, const double* norms, double* W,
                    double* a, Index replicas, std::uint64_t seed, std::uint64_t step, Index steps,
                    int threads) {
    const Index stride = padded(dim), p = m.p, ps = m.ps, B = m.batch;
    const rng::Key data = rng::stream_key(seed, rng::Purpose::DATA);
    const rng::Key label = rng::stream_key(seed, rng::Purpose::LABEL_NOISE);
    const double root = std::sqrt(static_cast<double>(dim));
    parallel_for(replicas, threads, [&](Index replica) {
        double *w = W + replica * p * stride, *ar = a + replica * p;
        const double* q0 = norms + replica * p;
        std::vector<double> x(B * stride), c(B * p), lambda(p), teacher(ps), da(p);
        for (Index s = 0; s < steps; ++s) {
            const std::uint64_t now = step + static_cast<std::uint64_t>(s);
            std::fill(da.begin(), da.end(), 0.0);
            for (Index b = 0; b < B; ++b) {
                double* xb = x.data() + b * stride;
                // Each member of a batch takes the next `stride / BLOCK` blocks of the step.
                rng::fill_normals(data, now, static_cast<std::uint64_t>(replica), stride / BLOCK,
                                  xb, static_cast<std::uint64_t>(b * stride / 2));
                std::fill(xb + dim, xb + stride, 0.0);
                fields(w, p, stride, xb, 1.0 / root, lambda.data());
                fields(W_star, ps, stride, xb, 1.0 / root, teacher.data());
                double e = m.offset;
                for (Index r = 0; r < ps; ++r)
                    e += m.a_star[r] * activate(m.activation, teacher[r]);
                for (Index k = 0; k < p; ++k) e -= ar[k] * activate(m.activation, lambda[k]);
                if (m.noise_var > 0.0) {
                    Lanes z0, z1;
                    rng::normals(rng::draw(label, words(static_cast<std::uint64_t>(b)), now,
                                           words(static_cast<std::uint64_t>(replica))),
                                 z0, z1);
                    e += std::sqrt(m.noise_var) * z0[0];
                }
                for (Index k = 0; k < p; ++k) {
                    c[b * p + k] = m.lr * e * ar[k] * activate_slope(m.activation, lambda[k]) /
                                   (root * static_cast<double>(B));
                    da[k] += m.second_layer_lr * e * activate(m.activation, lambda[k]) /
                             static_cast<double>(dim * B);
                }
            }
            for (Index b = 0; b < B; ++b) {
                for (Index k = 0; k < p; ++k) {
                    add_multiple(w + k * stride, c[b * p + k], x.data() + b * stride, stride);
                }
            }
            for (Index k = 0; k < p; ++k) ar[k] += da[k];
            if (!m.spherical) continue;
            for (Index k = 0; k < p; ++k) {
                double* row = w + k * stride;
                double norm2;
                fields(row, 1, stride, row, 1.0 / static_cast<double>(dim), &norm2);
                const double factor = std::sqrt(q0[k] / norm2);
                for (Index j = 0; j < stride; ++j) row[j] *= factor;
            }
        }
    });
}

}  // namespace overparam::sgd
