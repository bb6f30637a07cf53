#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/threads.hpp"
#include "math/erf.hpp"
#include "models/random_features.hpp"

namespace overparam::random_features {

namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::Map;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr Index PACK = 2 * LANES;  // normals of one call of the generator
// Inputs between two updates of the second layer within a block. The triangular system grows with
// their square, and so does its share of the time.
constexpr Index SOLVED_TOGETHER = 64;

Index packs(Index count) { return (count + PACK - 1) / PACK; }

template <class F>
void each(double* x, Index count, F f) {
    Index i = 0;
    for (; i + LANES <= count; i += LANES) store(x + i, f(load(x + i)));
    if (i == count) return;
    double rest[LANES] = {};
    std::copy(x + i, x + count, rest);
    store(rest, f(load(rest)));
    std::copy(rest, rest + (count - i), x + i);
}

void activate(Activation g, double* x, Index count) {
    switch (g) {
        case Activation::ERF:
            return each(x, count, [](const Lanes& u) { return erf_root2(u); });
        case Activation::RELU:
            return each(x, count, [](const Lanes& u) { return maximum(u, lanes(0.0)); });
        case Activation::QUAD:
            return each(x, count, [](const Lanes& u) { return M_SQRT1_2 * (u * u - 1.0); });
        case Activation::SQUARE:
            return each(x, count, [](const Lanes& u) { return u * u; });
        case Activation::LINEAR:
            return;
        case Activation::SIGN:
            return each(x, count, [](const Lanes& u) {
                const Lanes zero = lanes(0.0);
                return select(u > zero, lanes(1.0), select(u < zero, lanes(-1.0), zero));
            });
    }
}

// For one student, where dgemm is slow: out_s += scale phi_s . a for `count` rows phi_s of length
// K.
void add_outputs(const double* phi, Index K, Index count, double scale, const double* a,
                 double* out) {
    for (Index s = 0; s < count; ++s) {
        const double* row = phi + s * K;
        Lanes total[4] = {lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)};
        Index i = 0;
        for (; i + 4 * LANES <= K; i += 4 * LANES) {
            for (int k = 0; k < 4; ++k) {
                total[k] += load(row + i + k * LANES) * load(a + i + k * LANES);
            }
        }
        for (; i + LANES <= K; i += LANES) total[0] += load(row + i) * load(a + i);
        double rest = 0.0;
        for (; i < K; ++i) rest += row[i] * a[i];
        out[s] += scale * (sum((total[0] + total[1]) + (total[2] + total[3])) + rest);
    }
}

// a += scale sum_s factors_s phi_s, four rows at a time.
void add_features(const double* phi, Index K, Index count, double scale, const double* factors,
                  double* a) {
    for (Index s = 0; s < count; s += 4) {
        const Index rows = std::min<Index>(4, count - s);
        const double* row[4];
        double factor[4];
        for (Index k = 0; k < 4; ++k) {
            row[k] = phi + (s + std::min(k, rows - 1)) * K;
            factor[k] = k < rows ? scale * factors[s + k] : 0.0;
        }
        const Lanes f[4] = {lanes(factor[0]), lanes(factor[1]), lanes(factor[2]), lanes(factor[3])};
        Index i = 0;
        for (; i + LANES <= K; i += LANES) {
            Lanes x = load(a + i);
            for (int k = 0; k < 4; ++k) x += f[k] * load(row[k] + i);
            store(a + i, x);
        }
        for (; i < K; ++i) {
            for (int k = 0; k < 4; ++k) a[i] += factor[k] * row[k][i];
        }
    }
}

// `count` normals times `scale`; `work` holds packs(count) packs.
void draw(rng::Key key, std::uint64_t step, Index replica, Index count, double scale,
          std::vector<double>& work, double* out) {
    rng::fill_normals(key, step, static_cast<std::uint64_t>(replica), packs(count), work.data());
    for (Index i = 0; i < count; ++i) out[i] = scale * work[i];
}

}  // namespace

Simulation::Simulation(Experiment experiment, std::vector<double> W, std::vector<double> B,
                       int threads)
    : e_(std::move(experiment)), W_(std::move(W)), B_(std::move(B)), W_stride_(0), B_stride_(0) {
    const Index N = e_.dim, K = e_.width;
    const double root = std::sqrt(static_cast<double>(N));
    if (W_.empty()) {
        W_stride_ = K * N;
        W_.resize(e_.replicas * W_stride_);
        const rng::Key key = rng::stream_key(e_.seed, rng::Purpose::FEATURES);
        parallel_for(e_.replicas, threads, [&](Index replica) {
            std::vector<double> work(packs(N) * PACK);
            for (Index i = 0; i < K; ++i) {
                Map<VectorXd> row(W_.data() + replica * W_stride_ + i * N, N);
                draw(key, static_cast<std::uint64_t>(i), replica, N, 1.0, work, row.data());
                if (e_.sphere) row *= root / row.norm();
            }
        });
    }
    if (B_.empty()) {
        const Index rank = static_cast<Index>(e_.frame.size()) / e_.units();
        B_stride_ = e_.teachers * e_.units() * N;
        B_.resize(e_.replicas * B_stride_);
        const Map<const RowMatrix> frame(e_.frame.data(), e_.units(), rank);
        const rng::Key key = rng::stream_key(e_.seed, rng::Purpose::TEACHER);
        parallel_for(e_.replicas, threads, [&](Index replica) {
            std::vector<double> work(packs(N * rank) * PACK);
            MatrixXd normals(N, rank);
            for (Index t = 0; t < e_.teachers; ++t) {
                draw(key, static_cast<std::uint64_t>(t), replica, N * rank, 1.0, work,
                     normals.data());
                // Uniform on orthonormal frames with the signs of R's diagonal.
                const Eigen::HouseholderQR<MatrixXd> qr(normals);
                MatrixXd Q = MatrixXd::Identity(N, rank);
                Q.applyOnTheLeft(qr.householderQ());
                for (Index j = 0; j < rank; ++j) {
                    if (qr.matrixQR()(j, j) < 0.0) Q.col(j) *= -1.0;
                }
                Map<RowMatrix> units(B_.data() + replica * B_stride_ + t * e_.units() * N,
                                     e_.units(), N);
                units.noalias() = root * frame * Q.transpose();
            }
        });
    }
}

void Simulation::start(double init_var, double* a) const {
    const rng::Key key = rng::stream_key(e_.seed, rng::Purpose::STUDENT);
    std::vector<double> work(packs(e_.width) * PACK), one(e_.width);
    for (Index replica = 0; replica < e_.replicas; ++replica) {
        Map<RowMatrix> mine(a + replica * e_.width * e_.teachers, e_.width, e_.teachers);
        for (Index t = 0; t < e_.teachers; ++t) {
            draw(key, static_cast<std::uint64_t>(t), replica, e_.width, std::sqrt(init_var), work,
                 one.data());
            mine.col(t) = Map<const VectorXd>(one.data(), e_.width);
        }
    }
}

void Simulation::inputs(Index replica, Index step, Index count, double* X) const {
    const rng::Key key = rng::stream_key(e_.seed, rng::Purpose::DATA);
    std::vector<double> work(packs(e_.dim) * PACK);
    for (Index s = 0; s < count; ++s) {
        draw(key, static_cast<std::uint64_t>(step + s), replica, e_.dim, 1.0, work, X + s * e_.dim);
    }
}

void Simulation::label_noise(Index replica, Index step, Index count, double* noise) const {
    const rng::Key key = rng::stream_key(e_.seed, rng::Purpose::LABEL_NOISE);
    std::vector<double> work(packs(e_.teachers) * PACK);
    for (Index s = 0; s < count; ++s) {
        draw(key, static_cast<std::uint64_t>(step + s), replica, e_.teachers,
             std::sqrt(e_.noise_var), work, noise + s * e_.teachers);
    }
}

// The features and labels of one block of one replica, and its steps.
class Simulation::Block {
  public:
    explicit Block(const Simulation& simulation)
        : s_(simulation),
          e_(simulation.e_),
          X_(e_.block * e_.dim),
          features_(e_.block * e_.width),
          fields_(e_.block * e_.teachers * e_.units()),
          labels_(e_.block * e_.teachers),
          errors_(SOLVED_TOGETHER * e_.teachers),
          products_(SOLVED_TOGETHER * SOLVED_TOGETHER) {}

    void steps(Index replica, const double* rates, Index step, Index count, double* a) {
        prepare(replica, step, count);
        for (Index s = 0; s < count; s += SOLVED_TOGETHER) {
            update(rates + s, s, std::min(SOLVED_TOGETHER, count - s), a);
        }
    }

  private:
    void prepare(Index replica, Index step, Index count) {
        const int N = static_cast<int>(e_.dim), K = static_cast<int>(e_.width),
                  n = static_cast<int>(count), rows = static_cast<int>(e_.teachers * e_.units());
        const double scale = 1.0 / std::sqrt(static_cast<double>(N));
        s_.inputs(replica, step, count, X_.data());
        blas::gemm_tn(K, n, N, scale, s_.first_layer(replica), X_.data(), 0.0, features_.data());
        activate(e_.activation, features_.data(), count * e_.width);
        blas::gemm_tn(rows, n, N, scale, s_.teachers(replica), X_.data(), 0.0, fields_.data());
        activate(e_.teacher_activation, fields_.data(), count * rows);
        if (e_.noise_var > 0.0) {
            s_.label_noise(replica, step, count, labels_.data());
        } else {
            std::fill(labels_.begin(), labels_.end(), 0.0);
        }
        const double* field = fields_.data();
        for (Index i = 0; i < count * e_.teachers; ++i) {
            for (Index m = 0; m < e_.units(); ++m) labels_[i] += e_.v[m] * *field++;
        }
    }

    // `count` steps from number `first` of the block on. Their errors e solve
    // e_s = phi_s . a - y_s - sum_{j<s} rate_j phi_s . phi_j e_j.
    void update(const double* rates, Index first, Index count, double* a) {
        const Index T = e_.teachers;
        const int K = static_cast<int>(e_.width), n = static_cast<int>(count),
                  t = static_cast<int>(T);
        const double root = std::sqrt(static_cast<double>(e_.width));
        const double* phi = features_.data() + first * e_.width;
        double *products = products_.data(), *errors = errors_.data();
        for (Index i = 0; i < count * T; ++i) errors[i] = -labels_[first * T + i];
        if (T == 1) {
            add_outputs(phi, e_.width, count, 1.0 / root, a, errors);
        } else {
            blas::gemm(t, n, K, 1.0 / root, a, phi, 1.0, errors);
        }
        blas::gemm_tn(n, n, K, 1.0 / static_cast<double>(K), phi, phi, 0.0, products);
        for (Index s = 0; s < count; ++s) {
            double* mine = errors + s * T;
            for (Index i = 0; i < T; ++i) mine[i] *= rates[s];
            // The error of this step, times its rate, in those of the later ones.
            const double* row = products + s * count;
            if (T == 1) {
                const double e = mine[0];
                for (Index j = s + 1; j < count; ++j) errors[j] -= row[j] * e;
                continue;
            }
            for (Index j = s + 1; j < count; ++j) {
                for (Index i = 0; i < T; ++i) errors[j * T + i] -= row[j] * mine[i];
            }
        }
        if (T == 1) {
            add_features(phi, e_.width, count, -1.0 / root, errors, a);
        } else {
            blas::gemm_nt(t, K, n, -1.0 / root, errors, phi, 1.0, a);
        }
    }

    const Simulation& s_;
    const Experiment& e_;
    std::vector<double> X_, features_, fields_, labels_, errors_, products_;
};

void Simulation::advance(const double* rates, Index step, Index count, double* a,
                         int threads) const {
    parallel_for(e_.replicas, threads, [&](Index replica) {
        Block block(*this);
        for (Index s = 0; s < count; s += e_.block) {
            block.steps(replica, rates + s, step + s, std::min(e_.block, count - s),
                        a + replica * e_.width * e_.teachers);
        }
    });
}

void risks(const double* gram, Index grams, const double* cross, const double* energy,
           Index crosses, const double* a, Index replicas, Index width, Index teachers, int threads,
           double* out) {
    const double K = static_cast<double>(width);
    const Index size = width * teachers;
    parallel_for(replicas, threads, [&](Index replica) {
        const double* mine = a + replica * size;
        const double* r = cross + (crosses == 1 ? 0 : replica) * size;
        std::vector<double> image(size);
        blas::gemm(static_cast<int>(teachers), static_cast<int>(width), static_cast<int>(width),
                   1.0, mine, gram + (grams == 1 ? 0 : replica) * width * width, 0.0, image.data());
        double total = 0.0;
        for (Index i = 0; i < size; ++i) {
            total += mine[i] * (image[i] / K - 2.0 * r[i] / std::sqrt(K));
        }
        for (Index t = 0; t < teachers; ++t) {
            total += energy[(crosses == 1 ? 0 : replica) * teachers + t];
        }
        out[replica] = total / (2.0 * static_cast<double>(teachers));
    });
}

}  // namespace overparam::random_features
