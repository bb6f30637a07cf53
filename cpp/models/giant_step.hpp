// One giant gradient step on the first layer, then a regression of the readout: theory and
// simulation. Equations and normalisations: docs/papers/giant_step.md.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "base/status.hpp"
#include "base/types.hpp"

namespace overparam::giant_step {

using Complex = std::complex<double>;

// ---- giant_step_features.cpp ----

// mu0, mu1, mus^2 and d mu0/dc of an activation at points k and bulk variances c.
struct Features {
    std::vector<double> mean, linear, residual, curvature;
};

// Activations with closed forms: max(x, 0), erf(x/sqrt 2), slope x + sin(frequency x), and
// polynomials of degree 3.
struct ClosedForm {
    enum class Kind { RELU, ERF, SINE, POLYNOMIAL } kind;
    double slope = 0.0, frequency = 0.0;  // SINE
    double coefficient[4] = {};           // POLYNOMIAL
};

Features closed_features(const ClosedForm& s, const std::vector<double>& k,
                         const std::vector<double>& c);

// The same at one variance c = deviation^2 from values of s on the lattice start + step i, which
// covers all points by 8.7 deviations.
Features lattice_features(const std::vector<double>& values, double start, double step,
                          const std::vector<double>& k, double deviation);

// What the readout sees of the activation, the target and the spike, at nodes kappa of the
// component along the spike. Arrays of features are (K, Nk), row-major.
struct Tables {
    std::vector<double> kappa, weight;                      // weights sum to one
    std::vector<double> mean, linear, residual, curvature;  // mu0, mu1, mus^2, d mu0/dc
    std::vector<double> target, target_linear, target_second;

    Index groups() const { return nodes() ? static_cast<Index>(mean.size()) / nodes() : 0; }
    Index nodes() const { return static_cast<Index>(kappa.size()); }
};

// The spectral measure of the bulk's covariance: every integral is the real part of a sum over
// modes. `along`, `across` and `orthogonal` are the weights of the directions v v, v z and z z, and
// `covariance` is (K, J), row-major.
struct Modes {
    std::vector<Complex> weight, covariance, along, across, orthogonal;
    std::vector<double> known_along = {};  // variance_along() where it is known exactly, else empty

    Index count() const { return static_cast<Index>(weight.size()); }
    Index groups() const { return count() ? static_cast<Index>(covariance.size()) / count() : 0; }
    // d times the variance of b_i . v for each group.
    std::vector<double> variance_along() const;
};

// ---- giant_step_readout.cpp ----

struct Setting {
    double alpha, beta, ridge, noise_var;
    std::vector<double> fraction;    // pi_g
    std::vector<double> norm_slope;  // nu_g; zeros without the norm term
    double slope_variance = 1.0;     // factor of the variance of rows along v (small steps)
    double inverse_width = 0.0;      // 1/p of the finite-width correction
};

// The resolvent of section 4.1 at V1h (K, K) and Lambda: v, V1 (K, K) and V2, warm-started at v
// where it is not empty.
struct Resolvent {
    std::vector<double> v, V1, V2;
    Index iterations = 0;
};

Resolvent resolvent(const Modes& modes, const std::vector<double>& fraction, double beta,
                    const std::vector<double>& V1h, const std::vector<double>& Lambda,
                    std::vector<double> v = {});

// v of one group and one mode: Lambda v + a v/(1 + beta a v) = 1 with a = c V1h, whose rationalised
// root loses no digits.
double isotropic_resolvent(double Lambda, double a, double beta);

struct Readout {
    double risk, train_risk;
    std::vector<double> m, theta, psi, Q1, q2, V1, V2;
    Status status;
    Index iterations;
    double residual;  // relative change of the last iteration
    double identity;  // defect of the trace identity
};

Readout solve_square(const Tables& tables, const Modes& modes, const Setting& setting);

// ---- giant_step_modes.cpp ----

// Labels y at nodes of the target's direction omega, with the weights of a normal variable.
struct Labels {
    std::vector<double> omega, weight, value;
};

// The bulk after a step on samples d = n0 samples, for Sigma_g = 1 + spread_g M2, the largest
// spread > 0, and label noise.
Modes step_modes(const Labels& labels, double noise_var, double samples,
                 const std::vector<double>& spread);

// ---- giant_step_logistic.cpp ----

// The law of a label's sign at the target's argument u: `first` (+-1) at -infinity, it turns at
// `changes` (increasing). With label noise, the rest of the probability of +1 at `node`s
// (increasing), times the length that belongs to the node. `certain` has the probability at the
// nodes of kappa, for the argument kappa or -kappa of a spike that is the target's direction.
struct SignLaw {
    double first;
    std::vector<double> changes, node, rest, certain;
};

enum class SignLoss { LOGISTIC, SQUARE };

// One group of rows without a preferred direction, of the given variance; train_risk is the mean
// loss, that of squares with a factor 1/2, and the risk NaN. Only the student's part of the tables
// is used.
Readout solve_signs(const Tables& tables, double variance, double alignment, const SignLaw& law,
                    const Setting& setting, SignLoss loss);

// Probability that the solution's output has another sign than the label; the tables may be others,
// with nodes where the mean output changes its sign.
double sign_error(const Tables& tables, double alignment, const SignLaw& law,
                  const Readout& readout);

}  // namespace overparam::giant_step
