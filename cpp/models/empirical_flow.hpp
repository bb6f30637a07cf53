// Gradient flow of quadratic networks of extensive width on n ~ d^2 samples: long times in the
// limit of high dimension, and the network itself. Equations and normalisations:
// docs/papers/empirical_flow.md.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.hpp"
#include "base/types.hpp"
#include "math/ode.hpp"
#include "networks/sensing.hpp"

namespace overparam::empirical_flow {

// ---- empirical_flow_long_time.cpp
// ------------------------------------------------------------------

// A part with density of a law, by its Cauchy transform factor/(slope u - shift + r) at z = unit u,
// with r = (u - low)^(1/2) (u - high)^(1/2); no such part if its mass is 0.
struct Interval {
    double low = 0.0, high = 0.0, unit = 1.0, factor = 0.0, slope = 0.0, shift = 0.0, mass = 0.0;
};

// Law of the teacher's eigenvalues, none of them negative: that of Marchenko and Pastur with ratio
// kappa*, or atoms and an interval for ratio 0; a semicircle may be freely added to it.
struct TeacherLaw {
    double mean, second;  // moments, without the semicircle
    double ratio = 0.0;
    std::vector<double> positions, weights;  // ascending
    Interval interval;
    double variance = 0.0;  // of the semicircle
};

struct Setting {
    double alpha, kappa, noise, ridge;
};

// A stationary state, or a stationary solution of the equations.
struct Fixed {
    double alpha, risk, train, sigma2, threshold, c, rank, trace, overlap, objective, stable;
    double residual_sigma2, residual_c;
};
constexpr Index FIXED_FIELDS = sizeof(Fixed) / sizeof(double);

struct Found {
    std::vector<Fixed> fixed;
    Index evaluations = 0;  // of the integrals over the spectrum
    Status status = Status::SUCCESS;
};

// All solutions for given samples, by increasing sigma2. A ridge of 0 is the limit 0+.
Found long_time(const TeacherLaw& teacher, const Setting& setting);

// All solutions for given values of sigma2, by sigma2 and threshold; setting.alpha is not used.
Found curve(const TeacherLaw& teacher, const Setting& setting, const std::vector<double>& sigma2);

// The ridge at which the solution of smallest sigma2 is smallest; setting.ridge is not used.
double optimal_ridge(const TeacherLaw& teacher, const Setting& setting);

// Risk of the Bayes-optimal estimator for a Marchenko-Pastur teacher.
double bayes_risk(double alpha, double ratio, double scale, double noise);

// Samples at which lam -> 0+ recovers a noiseless teacher, and the smallest width at which they no
// longer depend on the width.
double recovery_threshold(double kappa, double ratio);
double saturation_width(double ratio);

// Samples at which the training loss of lam -> 0+ stops being zero.
double interpolation_threshold(double kappa, double ratio, double noise);

// ---- empirical_flow_simulate.cpp ---------------------------------------------------------------

enum class Design {
    NETWORK,  // X = (x x^T - I)/sqrt d, x of independent standard normals
    GOE,      // X of the standard GOE(d)
};

struct Experiment {
    Index d = 0, m = 0, n = 0;
    Design design = Design::NETWORK;
    double noise_var = 0.0, ridge = 0.0, init_scale = 1.0;
    // The teacher's eigenvalues in increasing order, S* diagonal; without any, S* = a G G^T/m*.
    std::vector<double> teacher;
    Index teacher_width = 0;
    double teacher_scale = 1.0;
    std::uint64_t seed = 0;
};

// What is recorded of a student: risk, train risk, trace, overlap; then the eigenvalues of S in
// increasing order if they are kept.
constexpr Index FIELDS = 4;

// Samples, labels and teacher of one replica: a function of the experiment and its number.
class Network {
  public:
    Network(const Experiment& experiment, std::uint64_t replica, int threads);

    Index d() const { return e_.d; }
    Index m() const { return e_.m; }
    const std::vector<double>& teacher() const { return S_star_; }  // (d, d)
    const std::vector<double>& noise() const { return noise_; }     // (n,)
    // Weights (d, m) at the start; each attempt has its own.
    std::vector<double> start(std::uint64_t attempt) const;
    // grad L to `gradient` (d, m); returns the mean squared residual.
    double loss_gradient(const double* W, double* gradient) const;
    // The fields; with the eigenvalues FIELDS + d numbers.
    void measure(const double* W, double train_risk, bool eigenvalues, double* out) const;
    // The matrices (n, d, d) and their labels, for tests.
    void samples(double* X, double* y) const;

  private:
    Experiment e_;
    std::uint64_t replica_;
    int threads_;
    std::vector<double> S_star_, noise_, inputs_, labels_;
    std::unique_ptr<Sensing> sensing_;
};

// Gradient descent with steps lr[0], lr[1], ...; the last of them repeats. Records after the given
// numbers of steps.
std::unique_ptr<Run> descent(std::shared_ptr<const Network> network, std::vector<double> W,
                             std::vector<double> lr, std::vector<Index> steps, bool eigenvalues);

// Gradient flow from t = 0.
std::unique_ptr<Run> gradient_flow(std::shared_ptr<const Network> network, std::vector<double> W,
                                   std::vector<double> t, double rtol, double atol, Index max_steps,
                                   bool eigenvalues);

// ---- empirical_flow_dmft.cpp -------------------------------------------------------------------

// The effective process of dynamical mean-field theory in matrices of size d. Replicas move in
// lockstep, in groups of equal size that share kernels; each has tangents under random probes.
struct EffectiveModel {
    Index d = 0, m = 0, steps = 0;
    Index replicas = 1, groups = 1, probes = 1;
    double alpha = 1.0, noise_var = 0.0, init_scale = 1.0, momentum = 0.0;
    // Of step 0, 1, ...; the last of them repeats.
    std::vector<double> lr, ridge;
    // The teacher's eigenvalues, S* diagonal; without any, S* = a G G^T/m* for each replica.
    std::vector<double> teacher;
    Index teacher_width = 0;
    double teacher_scale = 1.0;
    std::uint64_t seed = 0;

    // As W moves by multiplication from the left, a square root of S_0 does for more columns.
    Index columns() const { return d < m ? d : m; }
    // A symmetric matrix is a vector of its lower triangle by columns, entries off the diagonal
    // times sqrt 2, in `blocks` blocks of `block` entries with zeros at the end.
    Index entries() const { return d * (d + 1) / 2; }
    Index blocks() const { return (entries() + 511) / 512; }
    Index block() const { return (entries() + 16 * blocks() - 1) / (16 * blocks()) * 16; }
    // Rows that the history has room for: they are kept ROWS at a time.
    static constexpr Index ROWS = 4;
    Index rows() const { return (steps + ROWS) / ROWS * ROWS; }
    // Words that hold the signs of a probe, one bit per entry.
    Index words() const { return (blocks() * block() + 511) / 512 * 8; }
    Index group_size() const { return replicas / groups; }
};

// What a run keeps, R replicas, G groups, K probes, T steps. History is single or double precision.
template <class Real>
struct EffectiveState {
    double* W;  // (2, R, 1 + K, d columns): student and tangents, after even and odd steps
    double* subdiagonal;   // (R,): -lr tr(W_t^T W_(t-1)) (d + 1)/d^2
    Real *error, *noise;   // (R, blocks, rows, block): S - S*, normals of the noise
    Real* tangent;         // (R, K, blocks, rows, block): dS
    std::uint64_t* signs;  // (R, K, T, words)
    double* teacher;       // (R, blocks block)
    double *correlation, *response, *memory, *residual, *factor;  // (G, T + 1, T + 1)
    double *trace, *overlap, *stein;                              // (G, T + 1)
};

// Draws teachers and starts.
template <class Real>
void effective_start(const EffectiveModel& model, const EffectiveState<Real>& state, int threads);

// Rows `first` .. `first` + `count` - 1 of the kernels, and the steps from them; row T has no step.
// Returns how many were done: fewer at the first row that is not finite, which leaves no trace but
// in that row.
template <class Real>
Index effective_advance(const EffectiveModel& model, const EffectiveState<Real>& state, Index first,
                        Index count, int threads);

}  // namespace overparam::empirical_flow
