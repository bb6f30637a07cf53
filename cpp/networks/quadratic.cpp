#include "networks/quadratic.hpp"

#include <Eigen/Dense>
#include <algorithm>

#include "base/threads.hpp"

namespace overparam {

namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::Map;

// Partial sums are kept for this many blocks at most; a tile is what stays in cache.
constexpr Index MAX_BLOCKS = 16, TILE = 128;

}  // namespace

QuadraticSamples::QuadraticSamples(const double* X, const double* y, Index n, Index d)
    : X_(X),
      y_(y),
      n_(n),
      d_(d),
      blocks_(std::clamp<Index>(n / TILE, 1, MAX_BLOCKS)),
      partial_(blocks_),
      losses_(blocks_) {}

double QuadraticSamples::loss_gradient(const double* W, Index m, int threads, double* gradient) {
    const Map<const RowMatrix> weights(W, d_, m);
    parallel_for(blocks_, threads, [&](Index b) {
        partial_[b].assign(d_ * m, 0.0);
        Map<RowMatrix> sum(partial_[b].data(), d_, m);
        losses_[b] = 0.0;
        const Index end = n_ * (b + 1) / blocks_;
        RowMatrix fields;
        for (Index first = n_ * b / blocks_; first < end; first += TILE) {
            const Index count = std::min(TILE, end - first);
            const Map<const RowMatrix> X(X_ + first * d_, count, d_);
            fields.resize(count, m);
            fields.noalias() = X * weights;
            const Eigen::VectorXd r =
                fields.rowwise().squaredNorm() - Map<const Eigen::VectorXd>(y_ + first, count);
            losses_[b] += r.squaredNorm();
            fields.array().colwise() *= r.array();
            sum.noalias() += X.transpose() * fields;
        }
    });
    double loss = 0.0;
    Map<Eigen::VectorXd> total(gradient, d_ * m);
    total.setZero();
    for (Index b = 0; b < blocks_; ++b) {
        loss += losses_[b];
        total += Map<const Eigen::VectorXd>(partial_[b].data(), d_ * m);
    }
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
