#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.hpp"
#include "base/threads.hpp"
#include "models/population_flow.hpp"
#include "models/population_flow_shared.hpp"

namespace overparam::population_flow {

using Eigen::Map;
using Eigen::MatrixXd;

void random_start(Index d, Index m, Start start, double trace, std::uint64_t seed,
                  std::uint64_t replica, double* W) {
    const Index blocks = (d * m + 2 * LANES - 1) / (2 * LANES);
    std::vector<double> normals(blocks * 2 * LANES);
    rng::fill_normals(rng::stream_key(seed, rng::Purpose::STUDENT), 0, replica, blocks,
                      normals.data());
    Map<RowMatrix> out(W, d, m);
    out = Map<const RowMatrix>(normals.data(), d, m);
    if (start == Start::GAUSSIAN) {
        out *= std::sqrt(trace / (static_cast<double>(d) * static_cast<double>(m)));
        return;
    }
    // Uniform on orthonormal frames: the Q of a Gaussian matrix, with the signs of R's diagonal.
    const Eigen::HouseholderQR<MatrixXd> qr(out);
    MatrixXd frame = MatrixXd::Identity(d, m);
    frame.applyOnTheLeft(qr.householderQ());
    for (Index j = 0; j < m; ++j) {
        if (qr.matrixQR()(j, j) < 0.0) frame.col(j) *= -1.0;
    }
    out = std::sqrt(trace / static_cast<double>(m)) * frame;
}

namespace {

std::unique_ptr<Run> prepare(const Model& model, Method method, const std::vector<double>& W,
                             double trace, double limit, const Numerics& numerics) {
    switch (method) {
        case Method::REDUCED:
            return reduced(model, W.data(), numerics, false);
        case Method::RESTART:
            return restart(model, W.data(), numerics, limit, false);
        case Method::DIRECT:
            return direct(model, W.data(), numerics, false);
        case Method::WEIGHTS:
            return weights(model, W.data(), numerics, false);
        case Method::ORTHONORMAL:
            break;
    }
    // The teacher is a projector here, of eigenvalue 1.
    const double s0 = trace / static_cast<double>(model.m);
    const Map<const RowMatrix> rows(W.data(), model.d(), model.m);
    std::vector<Index> learned;
    for (Index i = 0; i < model.d(); ++i) {
        if (model.mu[i] > 0.0) learned.push_back(i);
    }
    MatrixXd facing(learned.size(), model.m);
    for (std::size_t i = 0; i < learned.size(); ++i) facing.row(i) = rows.row(learned[i]);
    const Eigen::VectorXd singular = Eigen::BDCSVD<MatrixXd>(facing).singularValues();
    std::vector<double> cosines2, counts;
    for (Index i = 0; i < singular.size(); ++i) {
        cosines2.push_back(std::min(1.0, singular(i) * singular(i) / s0));
        counts.push_back(1.0);
    }
    if (model.m > singular.size()) {
        cosines2.push_back(0.0);
        counts.push_back(static_cast<double>(model.m - singular.size()));
    }
    return orthonormal(cosines2, counts, static_cast<double>(learned.size()), model.kappa,
                       model.lam, s0, numerics);
}

}  // namespace

void simulate(const Model& model, Start start, double trace, Method method, double limit,
              const Numerics& numerics, std::uint64_t seed, Index first, Index count, int threads,
              double* out) {
    const Index times = static_cast<Index>(numerics.t.size());
    parallel_for(count, threads, [&](Index i) {
        std::vector<double> W(model.d() * model.m);
        random_start(model.d(), model.m, start, trace, seed, static_cast<std::uint64_t>(first + i),
                     W.data());
        const std::unique_ptr<Run> run = prepare(model, method, W, trace, limit, numerics);
        while (!run->advance(std::numeric_limits<Index>::max() / 4)) {
        }
        double* mine = out + i * times * FIELDS;
        std::fill(mine, mine + times * FIELDS, std::numeric_limits<double>::quiet_NaN());
        std::copy_n(run->values().data(), run->saved() * FIELDS, mine);
    });
}

}  // namespace overparam::population_flow
