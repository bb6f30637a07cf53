// What the exact flows of finite networks share.
#pragma once

#include <Eigen/Dense>
#include <cmath>

#include "models/population_flow.hpp"

namespace overparam::population_flow {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Rate of p = y - L/(2 mu), where y' = L (1 - decay) - 2 (mu - s) L y and N = 1 - L: from p itself
// where it is the small difference of the two, from y where a large shift multiplies their
// rounding.
inline double defect_rate(double L, double N, double s, double mu, double decay, double y,
                          double p) {
    const double common = -L * decay;
    return std::abs(s) <= mu ? common + L * (s / mu - 2.0 * (mu - s) * p)
                             : common + L * (N * s / mu + L - 2.0 * (mu - s) * y);
}

// kappa (tr S - tr S*) + lam.
double shift_of(const Model& model, double trace);

// The fields of a state with S = W W^T, without cancellation between S and S*.
void fields_of(const Model& model, const Eigen::MatrixXd& S, double shift_integral, double* out);

// G W = W W^T W - S* W + s W; returns s.
double steepest(const Model& model, const RowMatrix& W, RowMatrix& out);

}  // namespace overparam::population_flow
