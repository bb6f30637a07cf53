// Gradient flow of quadratic networks of extensive width on n ~ d^2 samples: long times in the
// limit of high dimension, and the network itself. Equations and normalisations:
// docs/papers/empirical_flow.md.
#pragma once

#include <vector>

#include "base/status.hpp"
#include "base/types.hpp"

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

// ---- empirical_flow_simulate.cpp
// -------------------------------------------------------------------

}  // namespace overparam::empirical_flow
