#include "networks/quadratic.hpp"

#include <Eigen/Dense>
#include <algorithm>

#include "base/blas.hpp"
#include "base/threads.hpp"

namespace overparam {

namespace {

using Eigen::Map;
using Eigen::VectorXd;

// Partial sums are kept for this many blocks at most; a tile is what stays in cache.
constexpr Index MAX_BLOCKS = 16, TILE = 256;

}  // namespace

QuadraticSamples::QuadraticSamples(const double* X, const double* y, Index n, Index d,
                                   double centring)
    : X_(X),
      y_(y),
      n_(n),
      d_(d),
      blocks_(std::clamp<Index>(n / TILE, 1, MAX_BLOCKS)),
      centring_(centring),
      partial_(blocks_),
      fields_(blocks_),
      losses_(blocks_),
      residuals_(blocks_) {}

double QuadraticSamples::loss_gradient(const double* W, Index m, int threads, double* gradient) {
    const Map<const VectorXd> weights(W, d_ * m);
    const double centre = centring_ == 0.0 ? 0.0 : centring_ * weights.squaredNorm();
    parallel_for(blocks_, threads, [&](Index b) {
        partial_[b].assign(d_ * m, 0.0);
        losses_[b] = residuals_[b] = 0.0;
        const Index begin = n_ * b / blocks_, end = n_ * (b + 1) / blocks_;
        const Index tiles = (end - begin + TILE - 1) / TILE;
        fields_[b].resize(TILE * m);
        for (Index tile = 0; tile < tiles; ++tile) {
            const Index first = begin + (end - begin) * tile / tiles;
            const Index count = begin + (end - begin) * (tile + 1) / tiles - first;
            const double* X = X_ + first * d_;
            double* field = fields_[b].data();
            blas::gemm(static_cast<int>(m), static_cast<int>(count), static_cast<int>(d_), 1.0, W,
                       X, 0.0, field);
            for (Index i = 0; i < count; ++i) {
                Map<VectorXd> row(field + i * m, m);
                const double r = row.squaredNorm() - centre - y_[first + i];
                losses_[b] += r * r;
                residuals_[b] += r;
                row *= r;
            }
            blas::gemm_nt(static_cast<int>(m), static_cast<int>(d_), static_cast<int>(count), 1.0,
                          field, X, 1.0, partial_[b].data());
        }
    });
    double loss = 0.0, residual = 0.0;
    Map<VectorXd> total(gradient, d_ * m);
    total.setZero();
    for (Index b = 0; b < blocks_; ++b) {
        loss += losses_[b];
        residual += residuals_[b];
        total += Map<const VectorXd>(partial_[b].data(), d_ * m);
    }
    if (centring_ != 0.0) total -= centring_ * residual * weights;
    total /= static_cast<double>(n_);
    return loss / static_cast<double>(n_);
}

double QuadraticSamples::descend(double* W, Index m, double rate, double ridge, Index steps,
                                 int threads) {
    std::vector<double> gradient(d_ * m);
    double norms = 0.0;
    for (Index step = 0; step < steps; ++step) {
        loss_gradient(W, m, threads, gradient.data());
        for (Index i = 0; i < d_ * m; ++i) {
            norms += W[i] * W[i];
            W[i] -= rate * (0.5 * gradient[i] + ridge * W[i]);
        }
    }
    return norms;
}

}  // namespace overparam
