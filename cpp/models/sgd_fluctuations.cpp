#include <Eigen/Dense>
#include <array>
#include <utility>

#include "models/sgd.hpp"

namespace overparam::sgd {

namespace {

using Eigen::MatrixXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMap = Eigen::Map<const RowMatrix>;

// Power series in t to order 4.
using Series = std::array<double, 5>;

Series operator*(const Series& x, const Series& y) {
    Series r{};
    for (int i = 0; i < 5; ++i) {
        for (int j = 0; i + j < 5; ++j) r[i + j] += x[i] * y[j];
    }
    return r;
}

// Moments E[e^j z_a z_b ...] from E[exp(t e) f(z)] = S(t) E_t[f], where E_t has covariance
// Omega_t = sum_j (2t)^j Omega (C Omega)^j.
class TiltedMoments {
  public:
    TiltedMoments(const Model& m, const double* Q, const double* M) : n_(m.p + m.ps) {
        MatrixXd omega(n_, n_);
        omega.topLeftCorner(m.p, m.p) = ConstMap(Q, m.p, m.p);
        omega.topRightCorner(m.p, m.ps) = ConstMap(M, m.p, m.ps);
        omega.bottomLeftCorner(m.ps, m.p) = omega.topRightCorner(m.p, m.ps).transpose();
        omega.bottomRightCorner(m.ps, m.ps) = ConstMap(m.P.data(), m.ps, m.ps);
        Eigen::VectorXd c(n_);
        for (Index k = 0; k < m.p; ++k) c[k] = -m.a[k];
        for (Index r = 0; r < m.ps; ++r) c[m.p + r] = m.a_star[r];

        covariance_.resize(n_ * n_);
        const MatrixXd two_c_omega = 2.0 * (c.asDiagonal() * omega);
        MatrixXd power = omega, product = two_c_omega;
        Series exponent{};
        for (int j = 0; j < 5; ++j) {
            for (Index i = 0; i < n_ * n_; ++i) covariance_[i][j] = power.data()[i];
            if (j > 0) {
                exponent[j] = product.trace() / (2.0 * j);
                product = product * two_c_omega;
            }
            power = power * two_c_omega;
        }
        exponent[1] += m.offset;
        exponent[2] += 0.5 * m.noise_var;
        Series term = {1.0, 0.0, 0.0, 0.0, 0.0};
        scale_ = term;
        for (int k = 1; k < 5; ++k) {
            term = term * exponent;
            for (double& x : term) x /= k;
            for (int j = 0; j < 5; ++j) scale_[j] += term[j];
        }
    }

    // Entry j, times j!, is E[e^j z_a z_b].
    Series two(Index a, Index b) const { return scale_ * cov(a, b); }

    // Entry j, times j!, is E[e^j z_a z_b z_c z_d].
    Series four(Index a, Index b, Index c, Index d) const {
        const Series x = cov(a, b) * cov(c, d), y = cov(a, c) * cov(b, d),
                     z = cov(a, d) * cov(b, c);
        Series s;
        for (int j = 0; j < 5; ++j) s[j] = x[j] + y[j] + z[j];
        return scale_ * s;
    }

  private:
    const Series& cov(Index a, Index b) const { return covariance_[b * n_ + a]; }

    Index n_;
    std::vector<Series> covariance_;
    Series scale_;
};

// One step changes a coordinate by (linear e + square e^2) z_i z_j / N.
struct Coordinate {
    Index i, j;
    double linear, square;
};

std::vector<Coordinate> coordinates(const Model& m) {
    std::vector<Coordinate> list;
    for (Index k = 0; k < m.p; ++k) {
        for (Index r = 0; r < m.ps; ++r) list.push_back({k, m.p + r, 2.0 * m.lr * m.a[k], 0.0});
    }
    for (Index k = 0; k < m.p; ++k) {
        for (Index l = 0; l < m.p; ++l) {
            list.push_back(
                {k, l, 2.0 * m.lr * (m.a[k] + m.a[l]), 4.0 * m.lr * m.lr * m.a[k] * m.a[l]});
        }
    }
    return list;
}

class FluctuationEquations : public OdeSystem {
  public:
    explicit FluctuationEquations(const Model& model)
        : m_(model), n_(m_.p * m_.ps + m_.p * m_.p), da_(m_.p), increments_(n_ * n_), column_(n_) {}

    Index size() const override { return n_ + n_ * n_; }

    void rhs(const double* y, double* dy) override {
        const Index p = m_.p, ps = m_.ps;
        const double *M = y, *Q = y + p * ps;
        drift(m_, true, Q, M, m_.a.data(), dy + p * ps, dy, da_.data());
        increment_covariance(m_, Q, M, increments_.data());
        prepare(M, Q);
        const Eigen::Map<const RowMatrix> sigma(y + n_, n_, n_), added(increments_.data(), n_, n_);
        // Sigma is symmetric: its rows are the directions of the Jacobian product.
        RowMatrix product(n_, n_);
        for (Index i = 0; i < n_; ++i) {
            jacobian_product(sigma.row(i).data(), column_.data());
            product.col(i) = Eigen::Map<const Eigen::VectorXd>(column_.data(), n_);
        }
        Eigen::Map<RowMatrix> out(dy + n_, n_, n_);
        out = product + product.transpose() + added;
    }

  private:
    void prepare(const double* M, const double* Q) {
        const Index p = m_.p, ps = m_.ps;
        M_ = ConstMap(M, p, ps);
        Q_ = ConstMap(Q, p, p);
        A_ = Eigen::Map<const Eigen::VectorXd>(m_.a.data(), p);
        As_ = Eigen::Map<const Eigen::VectorXd>(m_.a_star.data(), ps);
        P_ = ConstMap(m_.P.data(), ps, ps);
        MA_ = M_ * As_.asDiagonal();
        QA_ = Q_ * A_.asDiagonal();
        G_ = MA_ * M_.transpose() - QA_ * Q_;
        X_ = MA_ * P_ - QA_ * M_;
        tau_ = m_.offset + (As_.asDiagonal() * P_).trace() - QA_.trace();
        const MatrixXd AP = As_.asDiagonal() * P_, AM = A_.asDiagonal() * MA_;
        kappa_ = (AP * AP).trace() - 2.0 * AM.cwiseProduct(M_).sum() + (QA_ * QA_).trace();
    }

    // Derivative of the drift along (dM, dQ).
    void jacobian_product(const double* direction, double* out) const {
        const Index p = m_.p, ps = m_.ps;
        const MatrixXd dM = ConstMap(direction, p, ps), dQ = ConstMap(direction + p * ps, p, p);
        const auto A = A_.asDiagonal();
        const MatrixXd dMA = dM * As_.asDiagonal(), dQA = dQ * A;
        const double dtau = -dQA.trace();
        const double dkappa = -4.0 * (A * MA_).cwiseProduct(dM).sum() + 2.0 * (QA_ * dQA).trace();
        const MatrixXd dG = dMA * M_.transpose() + MA_ * dM.transpose() - dQA * Q_ - QA_ * dQ;
        const MatrixXd dX = dMA * P_ - dQA * M_ - QA_ * dM;
        const MatrixXd dH =
            dX * MA_.transpose() + X_ * dMA.transpose() - dG * (A * Q_) - G_ * (A * dQ);
        const MatrixXd dV = 2.0 * (tau_ * dtau + dkappa) * Q_ +
                            (tau_ * tau_ + 2.0 * kappa_ + m_.noise_var) * dQ + 4.0 * dtau * G_ +
                            4.0 * tau_ * dG + 8.0 * dH;
        const MatrixXd F = 2.0 * m_.lr * (A * (dtau * Q_ + tau_ * dQ + 2.0 * dG));
        Eigen::Map<RowMatrix>(out, p, ps) = 2.0 * m_.lr * (A * (dtau * M_ + tau_ * dM + 2.0 * dX));
        Eigen::Map<RowMatrix>(out + p * ps, p, p) =
            F + F.transpose() + 4.0 * m_.lr * m_.lr * (A * dV * A);
    }

    Model m_;
    Index n_;
    std::vector<double> da_, increments_, column_;
    MatrixXd M_, Q_, P_, MA_, QA_, G_, X_;
    Eigen::VectorXd A_, As_;
    double tau_ = 0.0, kappa_ = 0.0;
};

}  // namespace

void increment_covariance(const Model& m, const double* Q, const double* M, double* out) {
    const TiltedMoments moments(m, Q, M);
    const std::vector<Coordinate> list = coordinates(m);
    const Index n = static_cast<Index>(list.size());
    std::vector<double> mean(n);
    for (Index i = 0; i < n; ++i) {
        const Series s = moments.two(list[i].i, list[i].j);
        mean[i] = list[i].linear * s[1] + list[i].square * 2.0 * s[2];
    }
    for (Index i = 0; i < n; ++i) {
        const Coordinate& x = list[i];
        for (Index j = 0; j <= i; ++j) {
            const Coordinate& y = list[j];
            const Series s = moments.four(x.i, x.j, y.i, y.j);
            out[i * n + j] = out[j * n + i] =
                x.linear * y.linear * 2.0 * s[2] +
                (x.linear * y.square + x.square * y.linear) * 6.0 * s[3] +
                x.square * y.square * 24.0 * s[4] - mean[i] * mean[j];
        }
    }
}

std::unique_ptr<OdeSystem> fluctuation_equations(const Model& model) {
    return std::make_unique<FluctuationEquations>(model);
}

}  // namespace overparam::sgd
