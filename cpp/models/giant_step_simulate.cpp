#include "models/giant_step_simulate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/threads.hpp"
#include "math/erf.hpp"

namespace overparam::giant_step {

namespace {

constexpr Index PACK = 2 * LANES;  // normals of one call of the generator
constexpr double NaN = std::numeric_limits<double>::quiet_NaN();

// Neurons, and columns of a factorisation, that one thread takes at a time. They do not depend on
// the number of threads, and neither does any bit of the result.
constexpr Index TILE = 512, FACTOR_TILE = 256;
// Samples whose features are computed together: fewer in large networks, for short slices.
constexpr Index BLOCK = 512, SHORT_BLOCK = 256;
constexpr double LARGE_NETWORK = 6e6;
// Least pivot of a Cholesky factor, over the largest, that is not rounding.
constexpr double PIVOT_ROUNDING = 1e-15;
// Operations below which replicas run in parallel, and the work within one of them does not.
constexpr double SMALL_REPLICA = 5e9;

enum Stage : std::uint64_t { FIRST, SECOND, TEST };

Index parts(Index count, Index size) { return (count + size - 1) / size; }

// ---- activations of packs ----

struct Point {
    Lanes value, slope;
};

Point tanh_point(const Lanes& u) {
    constexpr std::uint64_t SIGN = 0x8000000000000000ULL;
    const Words sign = as_words(u) & SIGN;
    Lanes a = as_lanes(as_words(u) ^ sign);
    a = select(lanes(20.0) < a, lanes(20.0), a);
    const Lanes t = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    return {as_lanes(as_words(t) ^ sign), 1.0 - t * t};
}

Point erf_point(const Lanes& u) {
    const Lanes square = u * u;
    const Lanes capped = select(square < lanes(1400.0), square, lanes(1400.0));
    return {erf_root2(u), 7.97884560802865355880e-01 * exp(-0.5 * capped)};
}

void accurate_cos_sin(const Lanes& u, Lanes& c, Lanes& s) {
    constexpr double FAR = 1e6;
    cos_sin(u, c, s);
    if (!any(u * u > lanes(FAR * FAR))) return;
    for (int i = 0; i < LANES; ++i) {
        c.set(i, std::cos(u[i]));
        s.set(i, std::sin(u[i]));
    }
}

Point softplus_point(const Lanes& u) {
    const Lanes a = maximum(u, -u);
    const Lanes e = exp(-select(lanes(700.0) < a, lanes(700.0), a));
    return {maximum(u, lanes(0.0)) + log(1.0 + e),
            select(u > lanes(0.0), lanes(1.0), e) / (1.0 + e)};
}

// Cubic Hermite interpolation in a table; NaN outside its range.
Point table_point(const Scalar& f, const Lanes& u) {
    Point out{lanes(NaN), lanes(NaN)};
    const double half = static_cast<double>(f.value.size() / 2);
    for (int i = 0; i < LANES; ++i) {
        const double t = u[i] / f.step;
        if (!(std::abs(t) < half)) continue;
        const double cell = std::floor(t), x = t - cell;
        const std::size_t at = static_cast<std::size_t>(cell + half);
        const double f0 = f.value[at], rise = f.value[at + 1] - f0;
        const double d0 = f.step * f.slope[at], d1 = f.step * f.slope[at + 1];
        const double a = 3.0 * rise - 2.0 * d0 - d1, b = d0 + d1 - 2.0 * rise;
        out.value.set(i, f0 + x * (d0 + x * (a + x * b)));
        out.slope.set(i, (d0 + x * (2.0 * a + x * (3.0 * b))) / f.step);
    }
    return out;
}

// Calls visit with the function u -> (f(u), f'(u)); what is not used of a point is not computed.
template <class V>
void with_points(const Scalar& f, V visit) {
    switch (f.kind) {
        case Nonlinearity::TANH:
            return visit([](const Lanes& u) { return tanh_point(u); });
        case Nonlinearity::RELU:
            return visit([](const Lanes& u) {
                return Point{maximum(u, lanes(0.0)),
                             select(u > lanes(0.0), lanes(1.0), lanes(0.0))};
            });
        case Nonlinearity::ERF:
            return visit([](const Lanes& u) { return erf_point(u); });
        case Nonlinearity::SIN:
            return visit([](const Lanes& u) {
                Lanes c, s;
                accurate_cos_sin(u, c, s);
                return Point{s, c};
            });
        case Nonlinearity::SOFTPLUS:
            return visit([](const Lanes& u) { return softplus_point(u); });
        case Nonlinearity::LINEAR:
            return visit([](const Lanes& u) { return Point{u, lanes(1.0)}; });
        case Nonlinearity::SINLIN:
            return visit([](const Lanes& u) {
                Lanes c, s;
                accurate_cos_sin(2.0 * u, c, s);
                return Point{s + u, 2.0 * c + 1.0};
            });
        case Nonlinearity::SIN2:
            return visit([](const Lanes& u) {
                Lanes c, s;
                accurate_cos_sin(2.0 * u, c, s);
                return Point{s, 2.0 * c};
            });
        case Nonlinearity::HE3:
            return visit([](const Lanes& u) {
                constexpr double ROOT = 4.08248290463863016366e-01;  // 1/sqrt 6
                const Lanes square = u * u;
                return Point{u + ROOT * (u * (square - 3.0)), 1.0 + 3.0 * ROOT * (square - 1.0)};
            });
        case Nonlinearity::QUAD1:
            return visit([](const Lanes& u) { return Point{u + 0.5 * (u * u - 1.0), 1.0 + u}; });
        case Nonlinearity::TABLE:
            return visit([&f](const Lanes& u) { return table_point(f, u); });
    }
}

// Calls f on packs of x, which it may change, and on the last one of what is left.
template <class F>
void each(double* x, Index count, F f) {
    Index i = 0;
    for (; i + LANES <= count; i += LANES) {
        Lanes u = load(x + i);
        f(u, i);
        store(x + i, u);
    }
    if (i == count) return;
    double rest[LANES] = {};
    std::copy(x + i, x + count, rest);
    Lanes u = load(rest);
    f(u, i);
    store(rest, u);
    std::copy(rest, rest + (count - i), x + i);
}

double largest_entry(const double* z, Index count) {
    double largest = 0.0;
    for (Index i = 0; i < count; ++i) {
        if (!(std::abs(z[i]) <= largest)) largest = std::abs(z[i]);
    }
    return largest;
}

}  // namespace

void evaluate(const Scalar& f, double* z, Index count) {
    with_points(f,
                [&](auto point) { each(z, count, [&](Lanes& u, Index) { u = point(u).value; }); });
}

void evaluate_slope(const Scalar& f, double* z, Index count) {
    with_points(f,
                [&](auto point) { each(z, count, [&](Lanes& u, Index) { u = point(u).slope; }); });
}

namespace {

// sum_i weight_i f(z_i), with f'(z) in place of z. `weight` is readable up to whole packs.
double evaluate_slopes(const Scalar& f, const double* weight, double* z, Index count) {
    Lanes total = lanes(0.0);
    const Lanes numbers = [] {
        Lanes x;
        for (int i = 0; i < LANES; ++i) x.set(i, i);
        return x;
    }();
    with_points(f, [&](auto point) {
        each(z, count, [&](Lanes& u, Index at) {
            const Point p = point(u);
            const Mask mine = numbers < lanes(static_cast<double>(count - at));
            total += select(mine, load(weight + at) * p.value, lanes(0.0));
            u = p.slope;
        });
    });
    return sum(total);
}

double product(const double* x, const double* y, Index count) {
    Lanes total[4] = {lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)};
    Index i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        for (int k = 0; k < 4; ++k) total[k] += load(x + i + k * LANES) * load(y + i + k * LANES);
    }
    double rest = 0.0;
    for (; i < count; ++i) rest += x[i] * y[i];
    return sum((total[0] + total[1]) + (total[2] + total[3])) + rest;
}

}  // namespace

// ---- one replica ----

namespace {

// The units of work of one replica: blocks of first-stage samples, of second-stage samples, columns
// of the factorisation, blocks of test samples.
struct Plan {
    explicit Plan(const Experiment& e) {
        const double weights = static_cast<double>(e.width) * static_cast<double>(e.dim);
        block = weights > LARGE_NETWORK ? SHORT_BLOCK : BLOCK;
        block = std::min(block, std::max({e.first_samples, e.samples, e.test_samples}));
        block = parts(block, PACK) * PACK;
        first = parts(e.first_samples, block);
        second = parts(e.samples, block);
        columns = parts(std::min(e.samples, e.width), FACTOR_TILE);
        test = parts(e.test_samples, block);
    }
    Index units() const { return first + second + columns + test; }

    Index block, first, second, columns, test;
};

// The first layer before the step, or the spiked one.
void draw_weights(const Experiment& e, std::uint64_t replica, double* weights, int threads) {
    const rng::Key key = rng::stream_key(e.seed, rng::Purpose::FEATURES);
    const Index d = e.dim;
    std::vector<double> scale(e.width, 1.0), spike(e.width, 0.0);
    if (e.spiked) {
        Index i = 0;
        for (std::size_t g = 0; g < e.group.size(); i += e.group[g++]) {
            std::fill_n(scale.begin() + i, e.group[g], std::sqrt(e.variance[g]));
            std::fill_n(spike.begin() + i, e.group[g], e.strength[g]);
        }
    }
    parallel_for(parts(e.width, TILE), threads, [&](Index t) {
        std::vector<double> row(parts(d, PACK) * PACK);
        for (Index i = t * TILE; i < std::min(e.width, (t + 1) * TILE); ++i) {
            rng::fill_normals(key, static_cast<std::uint64_t>(i), replica, parts(d, PACK),
                              row.data());
            const double norm = std::sqrt(product(row.data(), row.data(), d));
            double* w = weights + i * d;
            for (Index k = 0; k < d; ++k) w[k] = scale[i] / norm * row[k];
            w[0] += spike[i];
        }
    });
}

// Inputs of samples first .. first + count of a stage.
void draw_inputs(const Experiment& e, std::uint64_t replica, std::uint64_t stage, Index first,
                 Index count, double* inputs, int threads) {
    constexpr Index CHUNK = 32;
    const rng::Key key = rng::stream_key(e.seed, rng::Purpose::DATA);
    const Index d = e.dim;
    parallel_for(parts(count, CHUNK), threads, [&](Index c) {
        std::vector<double> row(parts(d, PACK) * PACK);
        for (Index s = c * CHUNK; s < std::min(count, (c + 1) * CHUNK); ++s) {
            rng::fill_normals(key, (stage << 32) + static_cast<std::uint64_t>(first + s), replica,
                              parts(d, PACK), row.data());
            std::copy_n(row.data(), d, inputs + s * d);
        }
    });
}

// Label noise of the same samples; `first` is a multiple of PACK.
void draw_noise(const Experiment& e, std::uint64_t replica, std::uint64_t stage, Index first,
                Index count, double* noise) {
    if (e.noise_var == 0.0) {
        std::fill_n(noise, count, 0.0);
        return;
    }
    std::vector<double> normals(parts(count, PACK) * PACK);
    rng::fill_normals(rng::stream_key(e.seed, rng::Purpose::LABEL_NOISE), stage, replica,
                      parts(count, PACK), normals.data(),
                      static_cast<std::uint64_t>(first / PACK * LANES));
    for (Index s = 0; s < count; ++s) noise[s] = std::sqrt(e.noise_var) * normals[s];
}

}  // namespace

class Simulation::Replica {
  public:
    Replica(const Experiment& experiment, Index replica, int threads)
        : e_(experiment),
          replica_(static_cast<std::uint64_t>(replica)),
          plan_(e_),
          weights_(e_.width * e_.dim) {
        draw_weights(e_, replica_, weights_.data(), threads);
        if (e_.spiked) alignment_ = e_.alignment;
        if (plan_.first > 0) {
            step_.assign(e_.width * e_.dim, 0.0);
            gradient_.assign(e_.dim, 0.0);
            fields_.resize(plan_.block * e_.width);
            readout_.assign(e_.width + LANES, 0.0);
            Index i = 0;
            for (std::size_t g = 0; g < e_.group.size(); ++g) {
                std::fill_n(readout_.begin() + i, e_.group[g], e_.readout[g]);
                i += e_.group[g];
            }
        }
        inputs_.resize(plan_.block * e_.dim);
        sums_.resize(parts(e_.width, TILE) * plan_.block);
    }

    double largest() const { return largest_; }

    void advance(Index unit, int threads) {
        if (unit < plan_.first) {
            gradient_block(unit * plan_.block, threads);
            if (unit + 1 == plan_.first) finish_step();
            return;
        }
        unit -= plan_.first;
        if (unit == 0) prepare_second();
        if (failed_) return;
        if (unit < plan_.second) return feature_block(unit * plan_.block, threads);
        unit -= plan_.second;
        if (unit < plan_.columns) {
            factor_column(unit * FACTOR_TILE, threads);
            if (unit + 1 == plan_.columns && !failed_) solve();
            return;
        }
        unit -= plan_.columns;
        test_block(unit * plan_.block, threads);
    }

    void measure(double* out) const {
        const double tests = static_cast<double>(e_.test_samples);
        out[0] = failed_ ? NaN : error_ / tests;
        out[1] = failed_ ? NaN : train_risk_;
        out[2] = failed_ ? NaN : wrong_ / tests;
        out[3] = alignment_;
        out[4] = gradient_norm_;
    }

  private:
    Index order() const { return std::min(e_.samples, e_.width); }
    bool primal() const { return e_.samples >= e_.width; }

    // The target without noise, and the noise, of the samples drawn last.
    void label(Stage stage, Index first, Index count, double* target, double* noise) {
        const double rest = std::sqrt(std::max(0.0, 1.0 - e_.alignment * e_.alignment));
        for (Index s = 0; s < count; ++s) {
            const double* x = inputs_.data() + s * e_.dim;
            target[s] = e_.spiked ? e_.alignment * x[0] + (rest > 0.0 ? rest * x[1] : 0.0) : x[0];
        }
        if (e_.target.kind == Nonlinearity::TABLE) note(largest_entry(target, count));
        evaluate(e_.target, target, count);
        draw_noise(e_, replica_, stage, first, count, noise);
    }

    // W x of the neurons of tile t, for `count` samples: rows of `width` fields.
    void fields(Index t, Index count, double* out) const {
        const Index i = t * TILE;
        blas::gemm(true, false, tile_size(t), int(count), int(e_.dim), 1.0,
                   weights_.data() + i * e_.dim, int(e_.dim), inputs_.data(), int(e_.dim), 0.0,
                   out + i, int(e_.width));
    }
    int tile_size(Index t) const { return int(std::min(TILE, e_.width - t * TILE)); }

    void note(double largest) { largest_ = std::max(largest_, largest); }

    // Calls body(t, largest) for each tile of neurons, which reports the largest field of a table.
    template <class F>
    void each_tile(int threads, F body) {
        const Index tiles = parts(e_.width, TILE);
        std::vector<double> largest(tiles, 0.0);
        parallel_for(tiles, threads, [&](Index t) { body(t, largest[t]); });
        for (const double x : largest) note(x);
    }

    double field_size(const double* z, Index count) const {
        return e_.activation.kind == Nonlinearity::TABLE ? largest_entry(z, count) : 0.0;
    }

    // ---- first stage ----

    void gradient_block(Index first, int threads) {
        const Index count = std::min(plan_.block, e_.first_samples - first), d = e_.dim,
                    p = e_.width;
        draw_inputs(e_, replica_, FIRST, first, count, inputs_.data(), threads);
        std::vector<double> error(count), noise(count);
        label(FIRST, first, count, error.data(), noise.data());
        each_tile(threads, [&](Index t, double& largest) {
            fields(t, count, fields_.data());
            for (Index s = 0; s < count; ++s) {
                double* z = fields_.data() + s * p + t * TILE;
                largest = std::max(largest, field_size(z, tile_size(t)));
                sums_[t * plan_.block + s] =
                    evaluate_slopes(e_.activation, readout_.data() + t * TILE, z, tile_size(t));
            }
        });
        for (Index s = 0; s < count; ++s) {
            double output = 0.0;
            for (Index t = 0; t < parts(p, TILE); ++t) output += sums_[t * plan_.block + s];
            error[s] += noise[s] - output / static_cast<double>(p);
            double* x = inputs_.data() + s * d;
            for (Index k = 0; k < d; ++k) {
                x[k] *= error[s];
                gradient_[k] += x[k];
            }
        }
        // step += (inputs x error)^T slopes.
        parallel_for(parts(p, TILE), threads, [&](Index t) {
            const Index i = t * TILE;
            blas::gemm(false, true, int(d), tile_size(t), int(count), 1.0, inputs_.data(), int(d),
                       fields_.data() + i, int(p), 1.0, step_.data() + i * d, int(d));
        });
    }

    void finish_step() {
        const double n0 = static_cast<double>(e_.first_samples);
        for (Index i = 0; i < e_.width; ++i) {
            const double rate = e_.lr * readout_[i] / n0;
            for (Index k = i * e_.dim; k < (i + 1) * e_.dim; ++k) weights_[k] += rate * step_[k];
        }
        gradient_norm_ = std::sqrt(product(gradient_.data(), gradient_.data(), e_.dim)) / n0;
        // The target depends on the first input.
        alignment_ = gradient_[0] / n0 / gradient_norm_;
        step_ = fields_ = gradient_ = std::vector<double>();
    }

    // ---- second stage ----

    void prepare_second() {
        const Index m = order();
        for (const double w : weights_) failed_ |= !std::isfinite(w);
        features_.resize(e_.samples * e_.width);
        labels_.resize(e_.samples);
        solution_.assign(e_.width, 0.0);
        gram_.assign(m * m, 0.0);
        if (failed_ || !primal()) return;
        for (Index i = 0; i < m; ++i) gram_[i * (m + 1)] = e_.ridge;
    }

    void feature_block(Index first, int threads) {
        const Index count = std::min(plan_.block, e_.samples - first), p = e_.width;
        draw_inputs(e_, replica_, SECOND, first, count, inputs_.data(), threads);
        std::vector<double> noise(count);
        double* y = labels_.data() + first;
        label(SECOND, first, count, y, noise.data());
        for (Index s = 0; s < count; ++s) y[s] += noise[s];
        double* rows = features_.data() + first * p;
        const double root = std::sqrt(static_cast<double>(p));
        each_tile(threads, [&](Index t, double& largest) {
            fields(t, count, rows);
            for (Index s = 0; s < count; ++s) {
                double* z = rows + s * p + t * TILE;
                largest = std::max(largest, field_size(z, tile_size(t)));
                evaluate(e_.activation, z, tile_size(t));
                if (!primal()) continue;
                double* b = solution_.data() + t * TILE;
                for (Index i = 0; i < tile_size(t); ++i) b[i] += y[s] / root * z[i];
            }
        });
        if (primal()) {
            add_covariance(rows, count, threads);
        } else {
            add_kernel(first, count, threads);
        }
    }

    // gram += features^T features/p, in its lower triangle.
    void add_covariance(const double* rows, Index count, int threads) {
        const Index p = e_.width, tiles = parts(p, TILE);
        const double scale = 1.0 / static_cast<double>(p);
        parallel_for(tiles * (tiles + 1) / 2, threads, [&](Index pair) {
            Index i = 0;
            while ((i + 1) * (i + 2) / 2 <= pair) ++i;
            const Index j = pair - i * (i + 1) / 2;
            double* c = gram_.data() + j * TILE * p + i * TILE;
            if (i == j) {
                blas::syrk(false, tile_size(i), int(count), scale, rows + i * TILE, int(p), 1.0, c,
                           int(p));
            } else {
                blas::gemm(false, true, tile_size(i), tile_size(j), int(count), scale,
                           rows + i * TILE, int(p), rows + j * TILE, int(p), 1.0, c, int(p));
            }
        });
    }

    // Rows first .. first + count of features features^T/p + ridge, in its lower triangle.
    void add_kernel(Index first, Index count, int threads) {
        const Index p = e_.width, n = e_.samples;
        const double scale = 1.0 / static_cast<double>(p);
        const double* mine = features_.data() + first * p;
        parallel_for(first / plan_.block + 1, threads, [&](Index b) {
            double* c = gram_.data() + b * plan_.block * n + first;
            if (b * plan_.block == first) {
                blas::syrk(true, int(count), int(p), scale, mine, int(p), 0.0, c, int(n));
                for (Index i = 0; i < count; ++i) c[i * (n + 1)] += e_.ridge;
            } else {
                blas::gemm(true, false, int(count), int(plan_.block), int(p), scale, mine, int(p),
                           features_.data() + b * plan_.block * p, int(p), 0.0, c, int(n));
            }
        });
    }

    // Columns first .. first + FACTOR_TILE of the Cholesky factor, from those before.
    void factor_column(Index first, int threads) {
        const Index m = order(), width = std::min(FACTOR_TILE, m - first);
        const Index tiles = parts(m - first, FACTOR_TILE);
        const auto rows = [&](Index t) {
            return int(std::min(FACTOR_TILE, m - first - t * FACTOR_TILE));
        };
        double* corner = gram_.data() + first * (m + 1);
        const double* before = gram_.data() + first;
        parallel_for(tiles, threads, [&](Index t) {
            double* c = corner + t * FACTOR_TILE;
            if (first == 0) return;
            if (t == 0) {
                blas::syrk(false, int(width), int(first), -1.0, before, int(m), 1.0, c, int(m));
            } else {
                blas::gemm(false, true, rows(t), int(width), int(first), -1.0,
                           before + t * FACTOR_TILE, int(m), before, int(m), 1.0, c, int(m));
            }
        });
        if (!blas::potrf(int(width), corner, int(m))) {
            failed_ = true;
            return;
        }
        parallel_for(tiles - 1, threads, [&](Index t) {
            blas::solve_right(rows(t + 1), int(width), corner, int(m),
                              corner + (t + 1) * FACTOR_TILE, int(m));
        });
    }

    // Whether a pivot of the factor is no more than its rounding.
    bool singular() const {
        const Index m = order();
        double least = std::numeric_limits<double>::infinity(), largest = 0.0;
        for (Index i = 0; i < m; ++i) {
            const double pivot = gram_[i * (m + 1)] * gram_[i * (m + 1)];
            least = std::min(least, pivot);
            largest = std::max(largest, pivot);
        }
        return !(least > PIVOT_ROUNDING * largest);
    }

    void solve() {
        const int m = int(order()), p = int(e_.width), n = int(e_.samples);
        const double root = std::sqrt(static_cast<double>(p));
        std::vector<double> rest = labels_;
        double* x = primal() ? solution_.data() : rest.data();
        if (singular()) {
            failed_ = true;
            return;
        }
        blas::solve_left(false, m, 1, gram_.data(), m, x, m);
        blas::solve_left(true, m, 1, gram_.data(), m, x, m);
        if (primal()) {
            blas::gemm(true, false, n, 1, p, -1.0 / root, features_.data(), p, x, p, 1.0,
                       rest.data(), n);
        } else {
            blas::gemm(false, false, p, 1, n, 1.0 / root, features_.data(), p, x, n, 0.0,
                       solution_.data(), p);
            // What the kernel leaves of the labels is ridge times its solution.
            for (double& r : rest) r *= e_.ridge;
        }
        train_risk_ = product(rest.data(), rest.data(), n) / static_cast<double>(n);
        if (!std::isfinite(train_risk_)) failed_ = true;
        for (double& a : solution_) a /= root;
        gram_ = features_ = labels_ = std::vector<double>();
        fields_.resize(plan_.block * e_.width);
    }

    // ---- test ----

    void test_block(Index first, int threads) {
        const Index count = std::min(plan_.block, e_.test_samples - first), p = e_.width;
        draw_inputs(e_, replica_, TEST, first, count, inputs_.data(), threads);
        std::vector<double> target(count), noise(count);
        label(TEST, first, count, target.data(), noise.data());
        each_tile(threads, [&](Index t, double& largest) {
            fields(t, count, fields_.data());
            for (Index s = 0; s < count; ++s) {
                double* z = fields_.data() + s * p + t * TILE;
                largest = std::max(largest, field_size(z, tile_size(t)));
                evaluate(e_.activation, z, tile_size(t));
                sums_[t * plan_.block + s] = product(z, solution_.data() + t * TILE, tile_size(t));
            }
        });
        for (Index s = 0; s < count; ++s) {
            double output = 0.0;
            for (Index t = 0; t < parts(p, TILE); ++t) output += sums_[t * plan_.block + s];
            error_ += (target[s] - output) * (target[s] - output);
            wrong_ += (target[s] + noise[s] >= 0.0) != (output >= 0.0);
        }
    }

    const Experiment& e_;
    std::uint64_t replica_;
    Plan plan_;
    std::vector<double> weights_, step_, gradient_, readout_;  // first layer and its gradient
    std::vector<double> inputs_, fields_, sums_;               // of one block
    std::vector<double> features_, labels_, gram_, solution_;  // second stage
    bool failed_ = false;
    double largest_ = 0.0;
    double train_risk_ = NaN, alignment_ = 0.0, gradient_norm_ = 0.0, error_ = 0.0, wrong_ = 0.0;
};

// ---- all replicas ----

Simulation::Simulation(Experiment experiment) : e_(std::move(experiment)) {}
Simulation::~Simulation() = default;

Index Simulation::units() const { return Plan(e_).units(); }

double Simulation::memory() const {
    const auto real = [](Index x) { return static_cast<double>(x); };
    const double d = real(e_.dim), p = real(e_.width), n = real(e_.samples);
    const double weights = d * p, m = std::min(n, p);
    const double step = e_.first_samples > 0 ? weights : 0.0;
    return 8.0 * (weights + std::max(step, n * p + m * m) + real(Plan(e_).block) * (d + p));
}

Index Simulation::together(int threads) const {
    const auto real = [](Index x) { return static_cast<double>(x); };
    const double d = real(e_.dim), p = real(e_.width), n = real(e_.samples);
    const double fields = 2.0 * (2.0 * real(e_.first_samples) + n + real(e_.test_samples)) * d * p;
    return fields + n * p * std::min(n, p) < SMALL_REPLICA ? std::max(threads, 1) : 1;
}

void Simulation::first_layer(Index replica, double* W) const {
    draw_weights(e_, static_cast<std::uint64_t>(replica), W, 1);
}

void Simulation::data(Index replica, int stage, double* X, double* noise) const {
    const Index samples[3] = {e_.first_samples, e_.samples, e_.test_samples};
    const auto r = static_cast<std::uint64_t>(replica), s = static_cast<std::uint64_t>(stage);
    draw_inputs(e_, r, s, 0, samples[stage], X, 1);
    draw_noise(e_, r, s, 0, samples[stage], noise);
}

void Simulation::advance(Index first, Index count, double* measures, int threads) {
    const Index each = units(), end = first + count;
    while (first < end) {
        const Index replica = first / each, offset = first % each;
        const Index whole = offset == 0 ? (end - first) / each : 0;
        if (whole > 1 && together(threads) > 1) {
            std::vector<double> largest(whole);
            parallel_for(whole, threads, [&](Index r) {
                Replica one(e_, replica + r, 1);
                for (Index u = 0; u < each; ++u) one.advance(u, 1);
                one.measure(measures + (replica + r) * MEASURES);
                largest[r] = one.largest();
            });
            largest_ = std::max(largest_, *std::max_element(largest.begin(), largest.end()));
            first += whole * each;
            continue;
        }
        if (!current_ || at_ > first || at_ / each != replica) {
            current_ = nullptr;
            current_ = std::make_unique<Replica>(e_, replica, threads);
            at_ = replica * each;
        }
        const Index stop = std::min(end, (replica + 1) * each);
        for (; at_ < stop; ++at_) current_->advance(at_ - replica * each, threads);
        largest_ = std::max(largest_, current_->largest());
        first = stop;
        if (first == (replica + 1) * each) {
            current_->measure(measures + replica * MEASURES);
            // The next one takes its place.
            current_ = nullptr;
        }
    }
}

}  // namespace overparam::giant_step
