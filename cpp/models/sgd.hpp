// One-pass SGD of finite-width two-layer networks: overlap equations, exact overlap chain, direct
// simulation, fluctuations. Equations and normalisations: docs/papers/sgd.md.
//
// Layouts: M is (p, ps), Q is (p, p), P is (ps, ps), all row-major; `a` is the second layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/types.hpp"
#include "math/ode.hpp"
#include "networks/kernels.hpp"

namespace overparam::sgd {

struct Model {
    Activation activation = Activation::QUADRATIC;
    Index p = 0, ps = 0;
    std::vector<double> a, a_star, P;
    double offset = 0.0, lr = 0.0, noise_var = 0.0, second_layer_lr = 0.0;
    Index batch = 1;
    bool spherical = false;
};

// ---- sgd_drift.cpp
// ---------------------------------------------------------------------------------

// Excess risk without the label-noise term.
double risk(const Model& model, const double* Q, const double* M, const double* a);

// The same from the coordinates of the chain (below), without cancellation when the student has
// learned.
double risk_in_frame(const Model& model, const double* Lstar, const double* Bm, const double* Qperp,
                     const double* a);

// Right-hand side of the overlap equations per unit t; noise=false drops the term in lr^2.
void drift(const Model& model, bool noise, const double* Q, const double* M, const double* a,
           double* dQ, double* dM, double* da);

// Mean overlaps after one step at input dimension `dim` (quadratic, free norms, fixed second
// layer).
void mean_step(const Model& model, double dim, const double* Q, const double* M, double* next_Q,
               double* next_M);

// The overlap equations as an ODE: M row-major, upper triangle of Q by rows, then a if it is
// trained.
std::unique_ptr<OdeSystem> overlap_equations(const Model& model, bool noise);

// Mode equations (uniform second layers, P = rho I, Q and M M^T commuting): m (ps entries, those
// beyond p unused), then q (p).
std::unique_ptr<OdeSystem> mode_equations(const Model& model, bool noise);

// Gradient flow by its closed solution up to one scalar (uniform a, no noise): the state is phi,
// the integrals of exp(2 .) per teacher direction and for the rest, and a rotation of the student
// units. `X` (p, ps) and `Y` (p, p) are the starting weights, times sqrt(a), in the eigenbasis of
// the teacher matrix with eigenvalues `sigma` and in a frame orthogonal to it.
std::unique_ptr<OdeSystem> riccati_equations(const Model& model, const std::vector<double>& sigma,
                                             const std::vector<double>& X,
                                             const std::vector<double>& Y);

// ---- sgd_fluctuations.cpp
// ------------------------------------------------------------------------------

// Overlaps with the covariance of their fluctuations at order 1/N. State: M row-major, Q row-major,
// then Sigma (n, n) row-major with n = p ps + p p. Quadratic, free norms, fixed second layer,
// batch 1.
std::unique_ptr<OdeSystem> fluctuation_equations(const Model& model);

// N^2 times the covariance of one step's increments of (M, Q), (n, n), to leading order.
void increment_covariance(const Model& model, const double* Q, const double* M, double* out);

// ---- sgd_chain.cpp
// ---------------------------------------------------------------------------------

// Exact overlap chain of SGD at input dimension dim >= p + ps. State of each replica: Bm (p, ps)
// and Qperp (p, p), where M = Bm Lstar^T and Q = Qperp + Bm Bm^T with P = Lstar Lstar^T, and a (p).
struct ChainState {
    double *Bm, *Qperp, *a;
};

// Advances replicas [0, replicas) from `step` by `steps` steps. `norms` (replicas, p) are the
// squared row norms that a spherical run keeps.
void chain_advance(const Model& model, double dim, const double* Lstar, const double* norms,
                   ChainState state, Index replicas, std::uint64_t seed, std::uint64_t step,
                   Index steps, int threads);

// ---- sgd_direct.cpp
// --------------------------------------------------------------------------------

// Direct SGD: W is (replicas, p, stride), W_star (ps, stride), with stride = padded(dim) and zeros
// beyond dim.
Index padded(Index dim);
void direct_advance(const Model& model, Index dim, const double* W_star, const double* norms,
                    double* W, double* a, Index replicas, std::uint64_t seed, std::uint64_t step,
                    Index steps, int threads);

}  // namespace overparam::sgd
