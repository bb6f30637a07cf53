#include <algorithm>
#include <cmath>
#include <vector>

#include "base/dispatch.hpp"
#include "base/rng.hpp"
#include "base/threads.hpp"
#include "models/sgd.hpp"

namespace overparam::sgd {

namespace {

using rng::Key;

constexpr Index BLOCK = 2 * LANES;  // normals of one call of the generator

// Scalar products of `count` rows with x.
void products(const double* rows, Index count, Index stride, Index columns, const double* x,
              double scale, double* out) {
    for (Index k = 0; k < count; ++k) {
        const double* row = rows + k * stride;
        Lanes even = lanes(0.0), odd = lanes(0.0);
        for (Index j = 0; j < columns; j += BLOCK) {
            even += load(row + j) * load(x + j);
            odd += load(row + j + LANES) * load(x + j + LANES);
        }
        out[k] = scale * sum(even + odd);
    }
}

void add_multiple(double* row, double factor, const double* x, Index stride) {
    const Lanes f = lanes(factor);
    for (Index j = 0; j < stride; j += LANES) store(row + j, load(row + j) + f * load(x + j));
}

// One replica. P is the student width, or 0 when it is known only at run time.
template <int P>
class Run {
  public:
    Run(const Model& model, Index dim, const double* W_star, const double* norms, double* W,
        double* a, Index replica, std::uint64_t seed)
        : m_(model),
          width_(P ? P : model.p),
          dim_(dim),
          stride_(padded(dim)),
          root_(std::sqrt(static_cast<double>(dim))),
          W_star_(W_star),
          norms_(norms),
          W_(W),
          a_(a),
          replica_(static_cast<std::uint64_t>(replica)),
          data_(rng::stream_key(seed, rng::Purpose::DATA)),
          label_(rng::stream_key(seed, rng::Purpose::LABEL_NOISE)),
          x_(m_.batch * stride_),
          next_(stride_),
          c_(m_.batch * p()),
          lambda_(p()),
          teacher_(m_.ps),
          da_(p()),
          factor_(P ? 0 : p()),
          total_(P ? 0 : p()) {
        // The teacher's rows may be zero beyond the first columns: the frame is free.
        teacher_columns_ = 0;
        for (Index r = 0; r < m_.ps; ++r) {
            for (Index j = 0; j < stride_; ++j) {
                if (W_star[r * stride_ + j] != 0.0)
                    teacher_columns_ = std::max(teacher_columns_, j + 1);
            }
        }
        teacher_columns_ = padded(teacher_columns_);
    }

    void steps(std::uint64_t step, Index count) {
        const bool plain = m_.batch == 1 && !m_.spherical;
        for (Index s = 0; s < count; ++s) {
            const std::uint64_t now = step + static_cast<std::uint64_t>(s);
            if (plain) {
                fused(now);
            } else {
                separate(now);
            }
        }
        if (plain) update(0);
    }

  private:
    Index p() const { return P ? P : width_; }

    // Does the update that the last input left due and takes the fields of the next input, which it
    // generates on the way, in one pass over the weights: their traffic is what bounds a step.
    void fused(std::uint64_t step) {
        const Words replica = words(replica_);
        // Local arrays of a known width live in registers.
        Lanes factor_fixed[P ? P : 1], total_fixed[P ? P : 1];
        Lanes *factor = P ? factor_fixed : factor_.data(), *total = P ? total_fixed : total_.data();
        for (Index k = 0; k < p(); ++k) {
            factor[k] = lanes(c_[k]);
            total[k] = lanes(0.0);
        }
        for (Index j = 0; j < stride_; j += BLOCK) {
            Lanes z0, z1;
            rng::normals(rng::draw(data_, rng::lane_numbers() + static_cast<std::uint64_t>(j / 2),
                                   step, replica),
                         z0, z1);
            store(next_.data() + j, z0);
            store(next_.data() + j + LANES, z1);
            if (j + BLOCK > dim_) {
                std::fill(next_.begin() + dim_, next_.end(), 0.0);
                z0 = load(next_.data() + j);
                z1 = load(next_.data() + j + LANES);
            }
            const Lanes x0 = load(x_.data() + j), x1 = load(x_.data() + j + LANES);
            for (Index k = 0; k < p(); ++k) {
                double* row = W_ + k * stride_ + j;
                const Lanes w0 = load(row) + factor[k] * x0;
                const Lanes w1 = load(row + LANES) + factor[k] * x1;
                store(row, w0);
                store(row + LANES, w1);
                total[k] += w0 * z0 + w1 * z1;
            }
        }
        x_.swap(next_);
        for (Index k = 0; k < p(); ++k) lambda_[k] = sum(total[k]) / root_;
        std::fill(da_.begin(), da_.end(), 0.0);
        respond(step, 0);
        train_second_layer();
    }

    // Mini-batches and spherical runs.
    void separate(std::uint64_t step) {
        std::fill(da_.begin(), da_.end(), 0.0);
        for (Index b = 0; b < m_.batch; ++b) {
            double* x = x_.data() + b * stride_;
            rng::fill_normals(data_, step, replica_, stride_ / BLOCK, x,
                              static_cast<std::uint64_t>(b * stride_ / 2));
            std::fill(x + dim_, x + stride_, 0.0);
            products(W_, p(), stride_, stride_, x, 1.0 / root_, lambda_.data());
            respond(step, b);
        }
        for (Index b = 0; b < m_.batch; ++b) update(b);
        train_second_layer();
        if (!m_.spherical) return;
        for (Index k = 0; k < p(); ++k) {
            double *row = W_ + k * stride_, norm2;
            products(row, 1, stride_, stride_, row, 1.0 / static_cast<double>(dim_), &norm2);
            const double scale = std::sqrt(norms_[k] / norm2);
            for (Index j = 0; j < stride_; ++j) row[j] *= scale;
        }
    }

    // From the student's fields of one input to its update c of the weights.
    void respond(std::uint64_t step, Index member) {
        const double* x = x_.data() + member * stride_;
        products(W_star_, m_.ps, stride_, teacher_columns_, x, 1.0 / root_, teacher_.data());
        double e = m_.offset;
        for (Index r = 0; r < m_.ps; ++r) e += m_.a_star[r] * activate(m_.activation, teacher_[r]);
        for (Index k = 0; k < p(); ++k) e -= a_[k] * activate(m_.activation, lambda_[k]);
        if (m_.noise_var > 0.0) {
            Lanes z0, z1;
            rng::normals(
                rng::draw(label_, words(static_cast<std::uint64_t>(member)), step, words(replica_)),
                z0, z1);
            e += std::sqrt(m_.noise_var) * z0[0];
        }
        const double B = static_cast<double>(m_.batch), N = static_cast<double>(dim_);
        for (Index k = 0; k < p(); ++k) {
            c_[member * p() + k] =
                m_.lr * e * a_[k] * activate_slope(m_.activation, lambda_[k]) / (root_ * B);
            da_[k] += m_.second_layer_lr * e * activate(m_.activation, lambda_[k]) / (N * B);
        }
    }

    void update(Index member) {
        for (Index k = 0; k < p(); ++k) {
            add_multiple(W_ + k * stride_, c_[member * p() + k], x_.data() + member * stride_,
                         stride_);
        }
    }

    void train_second_layer() {
        if (m_.second_layer_lr == 0.0) return;
        for (Index k = 0; k < p(); ++k) a_[k] += da_[k];
    }

    const Model& m_;
    const Index width_, dim_, stride_;
    const double root_;
    const double *W_star_, *norms_;
    double *W_, *a_;
    const std::uint64_t replica_;
    const Key data_, label_;
    Index teacher_columns_;
    std::vector<double> x_, next_, c_, lambda_, teacher_, da_;
    std::vector<Lanes> factor_, total_;
};

}  // namespace

Index padded(Index dim) { return (dim + BLOCK - 1) / BLOCK * BLOCK; }

void direct_advance(const Model& m, Index dim, const double* W_star, const double* norms, double* W,
                    double* a, Index replicas, std::uint64_t seed, std::uint64_t step, Index steps,
                    int threads) {
    const Index stride = padded(dim);
    with_static_size(m.p, [&](auto width) {
        parallel_for(replicas, threads, [&](Index r) {
            Run<decltype(width)::value>(m, dim, W_star, norms + r * m.p, W + r * m.p * stride,
                                        a + r * m.p, r, seed)
                .steps(step, steps);
        });
    });
}

}  // namespace overparam::sgd
