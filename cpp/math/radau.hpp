// Radau IIA with five stages (order 9): coefficients and linear algebra of one step.
#pragma once

#include <Eigen/Dense>

#include "base/types.hpp"

namespace overparam {

namespace radau {

constexpr int STAGES = 5;
using Square = Eigen::Matrix<double, STAGES, STAGES>;
using Row = Eigen::Matrix<double, STAGES, 1>;

// Zeros of d^4/dx^4 [x^4 (x - 1)^5].
constexpr double NODES[STAGES] = {0.05710419611451768219, 0.27684301363812382768,
                                  0.58359043236891682006, 0.86024013565621944784, 1.0};

struct Tableau {
    Square A, A_inverse;
    Row error;     // estimate = gamma h f(y) + sum_s error_s Z_s, filtered
    double gamma;  // real eigenvalue of A

    Tableau() {
        Square powers, integrals;
        for (int i = 0; i < STAGES; ++i) {
            double x = 1.0;
            for (int k = 0; k < STAGES; ++k) {
                powers(i, k) = x;
                x *= NODES[i];
                integrals(i, k) = x / (k + 1);
            }
        }
        A = powers.transpose().fullPivLu().solve(integrals.transpose()).transpose();
        A_inverse = A.inverse();
        const auto eigenvalues = A.eigenvalues();
        gamma = 0.0;
        for (int i = 0; i < STAGES; ++i) {
            if (std::abs(eigenvalues[i].imag()) < 1e-9) gamma = eigenvalues[i].real();
        }
        // Weights of the embedded rule, of order 5 with gamma f(y), minus those of the method.
        Row moments = Row::Zero();
        moments(0) = -gamma;
        const Row difference = powers.transpose().fullPivLu().solve(moments);
        error = A_inverse.transpose() * difference;
    }
};

inline const Tableau& tableau() {
    static const Tableau t;
    return t;
}

}  // namespace radau

struct RadauWorkspace {
    explicit RadauWorkspace(Index d)
        : jacobian(d, d),
          Z(d, radau::STAGES),
          F(d, radau::STAGES),
          polynomial(d, radau::STAGES),
          change(d * radau::STAGES),
          error(d),
          d_(d) {}

    Eigen::MatrixXd jacobian, Z, F, polynomial;
    Eigen::VectorXd change, error;
    bool has_jacobian = false, fresh = false, has_polynomial = false;
    double factored_h = 0.0, contraction = 0.0;

    void factorise(double h) {
        const radau::Tableau& t = radau::tableau();
        Eigen::MatrixXd system(d_ * radau::STAGES, d_ * radau::STAGES);
        for (int i = 0; i < radau::STAGES; ++i) {
            for (int j = 0; j < radau::STAGES; ++j) {
                system.block(d_ * i, d_ * j, d_, d_) = -h * t.A(i, j) * jacobian;
            }
        }
        system.diagonal().array() += 1.0;
        stages_lu_.compute(system);
        filter_lu_.compute(Eigen::MatrixXd::Identity(d_, d_) - h * t.gamma * jacobian);
        factored_h = h;
    }

    // First guess of the stages: the last step's polynomial, continued.
    void start(double h) {
        Z.setZero();
        if (!has_polynomial) return;
        const double ratio = h / polynomial_h_;
        for (int s = 0; s < radau::STAGES; ++s) {
            const double x = 1.0 + ratio * radau::NODES[s];
            Z.col(s) = polynomial * basis(x) - polynomial.col(radau::STAGES - 1);
        }
    }

    // change = Z - h (A x 1) F, negated.
    void residual() {
        const radau::Tableau& t = radau::tableau();
        for (int i = 0; i < radau::STAGES; ++i) {
            change.segment(d_ * i, d_) = factored_h * (F * t.A.row(i).transpose()) - Z.col(i);
        }
    }

    void solve() { change = stages_lu_.solve(change).eval(); }

    void estimate(double h, const double* f) {
        const radau::Tableau& t = radau::tableau();
        error = h * t.gamma * Eigen::Map<const Eigen::VectorXd>(f, d_) + Z * t.error;
        error = filter_lu_.solve(error).eval();
    }

    void interpolate(double x, const double* y, double* out) const {
        Eigen::Map<Eigen::VectorXd>(out, d_) =
            Eigen::Map<const Eigen::VectorXd>(y, d_) + Z * basis(x);
    }

    void keep_polynomial(double h) {
        polynomial = Z;
        polynomial_h_ = h;
        has_polynomial = true;
    }

  private:
    // Lagrange polynomials of the nodes 0, c_1 .. c_5 at x, without that of 0.
    static radau::Row basis(double x) {
        radau::Row values;
        for (int s = 0; s < radau::STAGES; ++s) {
            double value = x / radau::NODES[s];
            for (int k = 0; k < radau::STAGES; ++k) {
                if (k != s) value *= (x - radau::NODES[k]) / (radau::NODES[s] - radau::NODES[k]);
            }
            values(s) = value;
        }
        return values;
    }

    Index d_;
    double polynomial_h_ = 0.0;
    Eigen::PartialPivLU<Eigen::MatrixXd> stages_lu_, filter_lu_;
};

}  // namespace overparam
