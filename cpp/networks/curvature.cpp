#include "networks/curvature.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/threads.hpp"

namespace overparam {

namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::Map;
using Eigen::VectorXd;

// Partial sums, in number and in numbers in all; samples that are taken at once.
constexpr Index MAX_BLOCKS = 16, MAX_PARTIAL = 1 << 25, TILE = 512;

}  // namespace

// A few samples with the student's fields and errors on them.
struct QuadraticCurvature::Tile {
    std::vector<double> drawn;
    const double* X = nullptr;
    RowMatrix fields;
    VectorXd error;
};

QuadraticCurvature::QuadraticCurvature(SampleSource source, const double* W, std::vector<double> a,
                                       double offset)
    : source_(std::move(source)), W_(W), a_(std::move(a)), offset_(offset) {
    if (!source_.X) return;
    const Index p = static_cast<Index>(a_.size());
    fields_.resize(source_.n * p);
    errors_.resize(source_.n);
    Tile tile;
    for (Index first = 0; first < source_.n; first += TILE) {
        const Index count = std::min(TILE, source_.n - first);
        tile.X = source_.X + first * source_.N;
        tile.error = Map<const VectorXd>(source_.y + first, count);
        measure(count, tile);
        std::copy_n(tile.fields.data(), count * p, fields_.data() + first * p);
        std::copy_n(tile.error.data(), count, errors_.data() + first);
    }
}

// As many partial sums as memory allows for `size` numbers each.
Index QuadraticCurvature::blocks(Index size) const {
    const Index most = std::clamp<Index>(MAX_PARTIAL / size, 2, MAX_BLOCKS);
    return std::clamp<Index>(source_.n / TILE, 1, most);
}

// The student's fields, and the error from the labels that it holds.
void QuadraticCurvature::measure(Index count, Tile& tile) const {
    const Index N = source_.N, p = static_cast<Index>(a_.size());
    tile.fields.resize(count, p);
    blas::gemm_tn(static_cast<int>(p), static_cast<int>(count), static_cast<int>(N),
                  1.0 / std::sqrt(static_cast<double>(N)), W_, tile.X, 0.0, tile.fields.data());
    tile.error -= tile.fields.array().square().matrix() * Map<const VectorXd>(a_.data(), p);
    tile.error.array() += offset_;
}

// Draws samples with their labels.
void QuadraticCurvature::draw(Index first, Index count, Tile& tile) const {
    const Index N = source_.N, ps = static_cast<Index>(source_.a_star.size());
    const Index lanes = 2 * LANES, packs = (N + lanes - 1) / lanes;
    tile.drawn.resize(count * N + lanes);
    const rng::Key data = rng::stream_key(source_.seed, rng::Purpose::DATA);
    // Rows overlap by the lanes that exceed N; the next one overwrites them.
    for (Index i = 0; i < count; ++i) {
        rng::fill_normals(data, static_cast<std::uint64_t>(first + i), 0, packs,
                          tile.drawn.data() + i * N);
    }
    tile.X = tile.drawn.data();
    RowMatrix taught(count, ps);
    blas::gemm_tn(static_cast<int>(ps), static_cast<int>(count), static_cast<int>(N),
                  1.0 / std::sqrt(static_cast<double>(N)), source_.W_star, tile.X, 0.0,
                  taught.data());
    tile.error = taught.array().square().matrix() * Map<const VectorXd>(source_.a_star.data(), ps);
    if (source_.noise > 0.0) {
        const rng::Key labels = rng::stream_key(source_.seed, rng::Purpose::LABEL_NOISE);
        double normals[2 * LANES];
        for (Index i = 0; i < count; ++i) {
            rng::fill_normals(labels, static_cast<std::uint64_t>(first + i), 0, 1, normals);
            tile.error(i) += source_.noise * normals[0];
        }
    }
}

void QuadraticCurvature::apply(const double* V, Index b, int threads, double* out) const {
    const Index N = source_.N, p = static_cast<Index>(a_.size()), columns = b * p;
    if (columns == 0) return;
    const Index parts = blocks(columns * N);
    std::vector<std::vector<double>> partial(parts);
    parallel_for(parts, threads, [&](Index part) {
        partial[part].assign(columns * N, 0.0);
        Tile tile;
        RowMatrix U;
        const Index end = source_.n * (part + 1) / parts;
        for (Index first = source_.n * part / parts; first < end; first += TILE) {
            const Index count = std::min(TILE, end - first);
            const double *fields = fields_.data() + first * p, *errors = errors_.data() + first;
            if (source_.X) {
                tile.X = source_.X + first * N;
            } else {
                draw(first, count, tile);
                measure(count, tile);
                fields = tile.fields.data();
                errors = tile.error.data();
            }
            U.resize(count, columns);
            blas::gemm_tn(static_cast<int>(columns), static_cast<int>(count), static_cast<int>(N),
                          1.0, V, tile.X, 0.0, U.data());
            for (Index i = 0; i < count; ++i) {
                const double e = errors[i], *field = fields + i * p;
                double* u = U.row(i).data();
                for (Index v = 0; v < b; ++v, u += p) {
                    double mean = 0.0;
                    for (Index k = 0; k < p; ++k) mean += a_[k] * field[k] * u[k];
                    for (Index k = 0; k < p; ++k) {
                        u[k] = a_[k] * (4.0 * field[k] * mean - 2.0 * e * u[k]);
                    }
                }
            }
            blas::gemm_nt(static_cast<int>(N), static_cast<int>(columns), static_cast<int>(count),
                          1.0, tile.X, U.data(), 1.0, partial[part].data());
        }
    });
    Map<VectorXd> total(out, columns * N);
    total.setZero();
    for (Index part = 0; part < parts; ++part) {
        total += Map<const VectorXd>(partial[part].data(), columns * N);
    }
    total /= static_cast<double>(source_.n);
}

}  // namespace overparam
