// Gradient flow of quadratic networks on the population risk: exact at finite size and in the limit
// of high dimension. Equations and normalisations: docs/papers/population_flow.md.
//
// The teacher is diagonal, S* = diag(mu); W is (d, m), row i belonging to mu_i, and S = W W^T. The
// flow is dW/dtau = (S* - S - s I) W with s = kappa (tr S - tr S*) + lam. Weights are row-major.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/types.hpp"
#include "math/ode.hpp"

namespace overparam::population_flow {

// What every run records at each time, in this order; then S, row-major, where it is kept.
enum Field { LOSS, DISTANCE2, TRACE, OVERLAP, SHIFT, SHIFT_INTEGRAL, FIELDS };

struct Model {
    std::vector<double> mu;  // (d,), >= 0 unless signed
    Index m = 0;
    double kappa = 0.5, lam = 0.0;

    Index d() const { return static_cast<Index>(mu.size()); }
};

struct Numerics {
    std::vector<double> t;
    double rtol, atol;
    Index max_steps;
};

// ---- population_flow_reduced.cpp
// -----------------------------------------------------------------

// Teacher of rank r <= m, whose rows of W0 have rank r.
std::unique_ptr<Run> reduced(const Model& model, const double* W0, const Numerics& numerics,
                             bool keep);

// Condition number of the rows of W0 that belong to positive mu, r <= m of them (infinite if their
// rank is lower).
double condition(const Model& model, const double* W0);

// Orthonormal families: teacher of eigenvalue 1 and rank `rank`, student s0 times a projector, with
// `cosines2` the squared cosines of their principal angles, `counts` how often each occurs.
std::unique_ptr<Run> orthonormal(const std::vector<double>& cosines2,
                                 const std::vector<double>& counts, double rank, double kappa,
                                 double lam, double s0, const Numerics& numerics);

// ---- population_flow_segments.cpp
// ----------------------------------------------------------------

// Segments of the closed solution, each from the weights at its start: any size and spectrum. Near
// `limit`, what the loss tends to from almost every start, the equation for W takes over.
std::unique_ptr<Run> restart(const Model& model, const double* W0, const Numerics& numerics,
                             double limit, bool keep);

// kappa = 0: the closed solution itself, no equation to integrate.
std::unique_ptr<Run> direct(const Model& model, const double* W0, const Numerics& numerics,
                            bool keep);

// ---- population_flow_weights.cpp
// -----------------------------------------------------------------

// The equation for W, integrated as it stands.
std::unique_ptr<Run> weights(const Model& model, const double* W0, const Numerics& numerics,
                             bool keep);

// Signed second layer: S = W+ W+^T - W- W-^T, widths m and m_minus.
std::unique_ptr<Run> signed_weights(const Model& model, Index m_minus, const double* W_plus,
                                    const double* W_minus, const Numerics& numerics);

// Steps W <- W - rate G W on `W` in place; returns the sum of rate s over them.
double descend(const Model& model, double rate, double* W, Index steps);

// The fields of given weights, SHIFT_INTEGRAL being 0.
void measure(const Model& model, const double* W, double* fields);

// ---- population_flow_limit.cpp
// -------------------------------------------------------------------

// A law given by nodes and weights.
struct Measure {
    std::vector<double> nodes, weights;
};

// Limit of high dimension: asymptotically free S0 and S*. An infinite kappa_d is the hard
// constraint tr S = tr S*. Records the fields per dimension, then for each teacher node
// x = 2 (tau mu - sigma), then y = k / (1 + exp x), k being that of the closed solution.
std::unique_ptr<Run> limit(const Measure& student, const Measure& teacher, double kappa_d,
                           double lam, const Numerics& numerics);

// ---- population_flow_simulate.cpp
// ----------------------------------------------------------------

enum class Start { GAUSSIAN, ORTHONORMAL };

// Random weights (d, m) with tr S0 = trace (in the mean for GAUSSIAN) of one replica.
void random_start(Index d, Index m, Start start, double trace, std::uint64_t seed,
                  std::uint64_t replica, double* W);

enum class Method { REDUCED, ORTHONORMAL, RESTART, DIRECT, WEIGHTS };

// Exact flow of replicas [first, first + count) into out (count, T, FIELDS); `limit` as in restart.
void simulate(const Model& model, Start start, double trace, Method method, double limit,
              const Numerics& numerics, std::uint64_t seed, Index first, Index count, int threads,
              double* out);

}  // namespace overparam::population_flow
