#include "networks/sensing.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/simd.hpp"
#include "base/threads.hpp"

namespace overparam {

namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::Map;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// Partial sums; rows that are read together, and so often from the second-level cache at their
// second use; samples drawn at once for the Gram matrix, its panels and their tiles.
constexpr Index MAX_BLOCKS = 16, MIN_BLOCK = 32, ROWS = 4;
constexpr Index SLAB = 256, PANEL = 256, TILE = 128;

// The upper triangle by rows of a symmetric matrix, entries off the diagonal times `factor`.
void pack(const double* S, Index d, double factor, double* out) {
    for (Index i = 0; i < d; ++i) {
        *out++ = S[i * d + i];
        for (Index j = i + 1; j < d; ++j) *out++ = factor * S[i * d + j];
    }
}

void unpack(const double* packed, Index d, double scale, double* S) {
    for (Index i = 0; i < d; ++i) {
        for (Index j = i; j < d; ++j) S[i * d + j] = S[j * d + i] = scale * *packed++;
    }
}

// S = W W^T, (d, d).
void outer(const double* W, Index d, Index m, double* S) {
    blas::gemm_tn(static_cast<int>(d), static_cast<int>(d), static_cast<int>(m), 1.0, W, W, 0.0, S);
}

// gradient (d, m) = G W for a symmetric G (d, d).
void times_weights(const double* G, const double* W, Index d, Index m, double* gradient) {
    blas::gemm(static_cast<int>(m), static_cast<int>(d), static_cast<int>(d), 1.0, W, G, 0.0,
               gradient);
}

// r_k = X_k . s for `count` <= ROWS rows.
void products(const float* X, Index stride, Index count, const double* s, double* r) {
    Lanes even[ROWS], odd[ROWS];
    for (Index k = 0; k < ROWS; ++k) even[k] = odd[k] = lanes(0.0);
    if (count == ROWS) {
        for (Index j = 0; j < stride; j += 2 * LANES) {
            const Lanes s0 = load(s + j), s1 = load(s + j + LANES);
            for (Index k = 0; k < ROWS; ++k) {
                even[k] += load(X + k * stride + j) * s0;
                odd[k] += load(X + k * stride + j + LANES) * s1;
            }
        }
    } else {
        for (Index k = 0; k < count; ++k) {
            for (Index j = 0; j < stride; j += 2 * LANES) {
                even[k] += load(X + k * stride + j) * load(s + j);
                odd[k] += load(X + k * stride + j + LANES) * load(s + j + LANES);
            }
        }
    }
    for (Index k = 0; k < count; ++k) r[k] = sum(even[k] + odd[k]);
}

// g += sum_k r_k X_k.
void add_rows(const float* X, Index stride, Index count, const double* r, double* g) {
    Lanes c[ROWS];
    for (Index k = 0; k < count; ++k) c[k] = lanes(r[k]);
    for (Index j = 0; j < stride; j += LANES) {
        Lanes total = load(g + j);
        if (count == ROWS) {
            for (Index k = 0; k < ROWS; ++k) total += c[k] * load(X + k * stride + j);
        } else {
            for (Index k = 0; k < count; ++k) total += c[k] * load(X + k * stride + j);
        }
        store(g + j, total);
    }
}

}  // namespace

Index GoeSource::stride() const { return (size() + 2 * LANES - 1) / (2 * LANES) * 2 * LANES; }

void GoeSource::draw(Index mu, double* work, float* out) const {
    rng::fill_normals(rng::stream_key(seed, rng::Purpose::DATA), static_cast<std::uint64_t>(mu),
                      replica, stride() / (2 * LANES), work);
    const double off = 1.0 / std::sqrt(static_cast<double>(d));
    for (Index i = 0; i < size(); ++i) out[i] = static_cast<float>(off * work[i]);
    for (Index i = 0, at = 0; i < d; at += d - i, ++i) {
        out[at] = static_cast<float>(M_SQRT2 * off * work[at]);
    }
    std::fill(out + size(), out + stride(), 0.0f);
}

GoeSamples::GoeSamples(GoeSource source, Index n, const double* S_star, const double* noise,
                       int threads)
    : source_(source),
      n_(n),
      stride_(source.stride()),
      blocks_(std::clamp<Index>(n / MIN_BLOCK, 1, MAX_BLOCKS)),
      X_(n * stride_),
      y_(n),
      partial_(blocks_),
      losses_(blocks_) {
    std::vector<double> target(stride_);
    pack(S_star, source_.d, 2.0, target.data());
    parallel_for(blocks_, threads, [&](Index b) {
        std::vector<double> work(stride_);
        for (Index mu = n_ * b / blocks_; mu < n_ * (b + 1) / blocks_; ++mu) {
            float* row = X_.data() + mu * stride_;
            source_.draw(mu, work.data(), row);
            products(row, stride_, 1, target.data(), &y_[mu]);
            y_[mu] += noise[mu];
        }
    });
}

double GoeSamples::loss_gradient(const double* W, Index m, int threads, double* gradient) {
    const Index d = source_.d;
    std::vector<double> S(d * d), packed(stride_);
    outer(W, d, m, S.data());
    pack(S.data(), d, 2.0, packed.data());
    parallel_for(blocks_, threads, [&](Index b) {
        partial_[b].assign(stride_, 0.0);
        losses_[b] = 0.0;
        const Index end = n_ * (b + 1) / blocks_;
        for (Index first = n_ * b / blocks_; first < end; first += ROWS) {
            const Index count = std::min(ROWS, end - first);
            const float* X = X_.data() + first * stride_;
            double r[ROWS];
            products(X, stride_, count, packed.data(), r);
            for (Index k = 0; k < count; ++k) {
                r[k] -= y_[first + k];
                losses_[b] += r[k] * r[k];
            }
            add_rows(X, stride_, count, r, partial_[b].data());
        }
    });
    double loss = losses_[0];
    Map<VectorXd> total(partial_[0].data(), stride_);
    for (Index b = 1; b < blocks_; ++b) {
        loss += losses_[b];
        total += Map<const VectorXd>(partial_[b].data(), stride_);
    }
    unpack(total.data(), d, 1.0 / static_cast<double>(n_), S.data());
    times_weights(S.data(), W, d, m, gradient);
    return loss / static_cast<double>(n_);
}

Index GoeGram::width(Index panel) const { return std::min(PANEL, size_ - panel * PANEL); }

GoeGram::GoeGram(GoeSource source, Index n, const double* S_star, const double* noise, int threads)
    : d_(source.d),
      size_(source.size()),
      panels_((size_ + PANEL - 1) / PANEL),
      gram_(panels_),
      partial_(panels_),
      target_(size_),
      cross_(size_, 0.0) {
    pack(S_star, d_, 1.0, target_.data());
    for (Index p = 0; p < panels_; ++p) gram_[p].assign((size_ - p * PANEL) * width(p), 0.0);
    const Index stride = source.stride();
    const double mean = 1.0 / static_cast<double>(n);
    // Samples as columns, so that each range of entries is contiguous.
    std::vector<float> rows(SLAB * stride);
    std::vector<double> columns(SLAB * size_);
    for (Index first = 0; first < n; first += SLAB) {
        const Index count = std::min(SLAB, n - first);
        parallel_for(count, threads, [&](Index k) {
            std::vector<double> work(stride);
            source.draw(first + k, work.data(), rows.data() + k * stride);
        });
        parallel_for(panels_, threads, [&](Index p) {
            for (Index j = p * PANEL; j < p * PANEL + width(p); ++j) {
                double* column = columns.data() + j * count;
                for (Index k = 0; k < count; ++k) column[k] = rows[k * stride + j];
                cross_[j] += mean * Map<const VectorXd>(column, count)
                                        .dot(Map<const VectorXd>(noise + first, count));
            }
        });
        parallel_for(panels_, threads, [&](Index p) {
            const double* from = columns.data() + p * PANEL * count;
            blas::gemm_tn(static_cast<int>(size_ - p * PANEL), static_cast<int>(width(p)),
                          static_cast<int>(count), mean, from, from, 1.0, gram_[p].data());
        });
    }
    for (Index mu = 0; mu < n; ++mu) noise2_ += mean * noise[mu] * noise[mu];
}

double GoeGram::loss_gradient(const double* W, Index m, int threads, double* gradient) {
    // With the error e = S - S*, off-diagonal entries counted twice: the residual is X . e - noise,
    // so that nothing cancels when the student has learned.
    std::vector<double> S(d_ * d_), error(size_);
    outer(W, d_, m, S.data());
    pack(S.data(), d_, 1.0, error.data());
    for (Index i = 0, at = 0; i < d_; ++i) {
        for (Index j = i; j < d_; ++j, ++at) {
            error[at] = (i == j ? 1.0 : 2.0) * (error[at] - target_[at]);
        }
    }
    parallel_for(panels_, threads, [&](Index p) {
        const Index first = p * PANEL, rows = size_ - first, columns = width(p);
        partial_[p].assign(rows, 0.0);
        const Map<const MatrixXd> A(gram_[p].data(), rows, columns);
        const Map<const VectorXd> e(error.data() + first, rows);
        Map<VectorXd> out(partial_[p].data(), rows);
        out.head(columns).noalias() += A.topRows(columns) * e.head(columns);
        for (Index i = columns; i < rows; i += TILE) {
            const Index count = std::min(TILE, rows - i);
            const auto tile = A.middleRows(i, count);
            out.segment(i, count).noalias() += tile * e.head(columns);
            out.head(columns).noalias() += tile.transpose() * e.segment(i, count);
        }
    });
    VectorXd total = VectorXd::Zero(size_);
    for (Index p = 0; p < panels_; ++p) {
        total.tail(size_ - p * PANEL) += Map<const VectorXd>(partial_[p].data(), size_ - p * PANEL);
    }
    const Map<const VectorXd> e(error.data(), size_), cross(cross_.data(), size_);
    const double loss = e.dot(total) - 2.0 * e.dot(cross) + noise2_;
    total -= cross;
    unpack(total.data(), d_, 1.0, S.data());
    times_weights(S.data(), W, d_, m, gradient);
    return loss;
}

}  // namespace overparam
