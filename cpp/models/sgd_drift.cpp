#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/blas.hpp"
#include "base/dispatch.hpp"
#include "models/sgd.hpp"

namespace overparam::sgd {

namespace {

using Eigen::Map;
using Eigen::MatrixXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// The moments of the quadratic network with e = y - yhat + b, without label noise:
//   tau = E e, kappa = tr(C Omega C Omega), G = M A* M^T - Q A Q, X = the teacher block of
//   Omega_s C Omega, H = X C Omega_s^T.
struct Moments {
    double tau, kappa;
    std::vector<double> G, X, H;  // (p, p), (p, ps), (p, p) row-major

    double risk() const { return 0.5 * (tau * tau + 2.0 * kappa); }
    // E[e^2 lambda lambda^T] without label noise.
    double second(Index kl, const double* Q) const {
        return (tau * tau + 2.0 * kappa) * Q[kl] + 4.0 * tau * G[kl] + 8.0 * H[kl];
    }
};

void scalars(const Model& m, const double* Q, const double* M, const double* a, Moments& out) {
    double trace = m.offset, kappa = 0.0;
    for (Index r = 0; r < m.ps; ++r) {
        trace += m.a_star[r] * m.P[r * m.ps + r];
        for (Index s = 0; s < m.ps; ++s) {
            kappa += m.a_star[r] * m.a_star[s] * m.P[r * m.ps + s] * m.P[r * m.ps + s];
        }
    }
    for (Index k = 0; k < m.p; ++k) {
        trace -= a[k] * Q[k * m.p + k];
        double row = 0.0;
        for (Index r = 0; r < m.ps; ++r)
            row -= 2.0 * m.a_star[r] * M[k * m.ps + r] * M[k * m.ps + r];
        for (Index l = 0; l < m.p; ++l) row += a[l] * Q[k * m.p + l] * Q[k * m.p + l];
        kappa += a[k] * row;
    }
    out.tau = trace;
    out.kappa = kappa;
}

// Small widths: loops over a compile-time width, so that rows live in registers.
template <int W>
void moments_small(const Model& m, const double* Q, const double* M, const double* a,
                   Moments& out) {
    const Index ps = m.ps;
    double G[W][W] = {}, H[W][W] = {}, aQ[W][W];
    for (int k = 0; k < W; ++k) {
        for (int l = 0; l < W; ++l) aQ[k][l] = a[k] * Q[k * W + l];
    }
    for (Index r = 0; r < ps; ++r) {
        for (int k = 0; k < W; ++k) {
            const double f = m.a_star[r] * M[k * ps + r];
            for (int l = 0; l < W; ++l) G[k][l] += f * M[l * ps + r];
        }
    }
    for (int k = 0; k < W; ++k) {
        for (int j = 0; j < W; ++j) {
            for (int l = 0; l < W; ++l) G[k][l] -= Q[k * W + j] * aQ[j][l];
        }
    }
    for (Index r = 0; r < ps; ++r) {
        double x[W] = {};
        for (Index s = 0; s < ps; ++s) {
            const double f = m.a_star[s] * m.P[s * ps + r];
            for (int k = 0; k < W; ++k) x[k] += f * M[k * ps + s];
        }
        for (int j = 0; j < W; ++j) {
            const double f = M[j * ps + r];
            for (int k = 0; k < W; ++k) x[k] -= f * aQ[j][k];
        }
        for (int k = 0; k < W; ++k) {
            out.X[k * ps + r] = x[k];
            const double f = m.a_star[r] * x[k];
            for (int l = 0; l < W; ++l) H[k][l] += f * M[l * ps + r];
        }
    }
    for (int k = 0; k < W; ++k) {
        for (int j = 0; j < W; ++j) {
            for (int l = 0; l < W; ++l) H[k][l] -= G[k][j] * aQ[j][l];
        }
    }
    std::copy(&G[0][0], &G[0][0] + W * W, out.G.begin());
    std::copy(&H[0][0], &H[0][0] + W * W, out.H.begin());
}

// Large widths: matrix products. Row-major arrays are read as transposed column-major ones.
void moments_large(const Model& m, const double* Q, const double* M, const double* a,
                   Moments& out) {
    const int p = static_cast<int>(m.p), ps = static_cast<int>(m.ps);
    const Map<const MatrixXd> Qt(Q, p, p), Mt(M, ps, p), Pt(m.P.data(), ps, ps);
    const Map<const Eigen::VectorXd> as(m.a_star.data(), ps), av(a, p);
    const MatrixXd AQ = av.asDiagonal() * Qt, AMt = as.asDiagonal() * Mt, Mp = Mt.transpose(),
                   QA = Qt * av.asDiagonal(), MA = Mp * as.asDiagonal();
    Map<MatrixXd> G(out.G.data(), p, p), Xt(out.X.data(), ps, p), H(out.H.data(), p, p);
    // G = M A* M^T - Q A Q;  X^T = P A* M^T - M^T A Q;  H = M A* X^T - Q A G.
    blas::gemm(p, p, ps, 1.0, Mp.data(), AMt.data(), 0.0, G.data());
    blas::gemm(p, p, p, -1.0, Qt.data(), AQ.data(), 1.0, G.data());
    const MatrixXd MtA = Mt * av.asDiagonal();
    blas::gemm(ps, p, ps, 1.0, Pt.data(), AMt.data(), 0.0, Xt.data());
    blas::gemm(ps, p, p, -1.0, MtA.data(), Qt.data(), 1.0, Xt.data());
    blas::gemm(p, p, ps, 1.0, MA.data(), Xt.data(), 0.0, H.data());
    blas::gemm(p, p, p, -1.0, QA.data(), G.data(), 1.0, H.data());
}

void moments(const Model& m, const double* Q, const double* M, const double* a, Moments& out) {
    out.G.resize(m.p * m.p);
    out.H.resize(m.p * m.p);
    out.X.resize(m.p * m.ps);
    scalars(m, Q, M, a, out);
    with_static_size(m.p, [&](auto width) {
        if constexpr (decltype(width)::value == 0) {
            moments_large(m, Q, M, a, out);
        } else {
            moments_small<decltype(width)::value>(m, Q, M, a, out);
        }
    });
}

void quadratic_drift(const Model& m, bool noise, const double* Q, const double* M, const double* a,
                     double* dQ, double* dM, double* da, Moments& work) {
    moments(m, Q, M, a, work);
    const Index p = m.p, ps = m.ps;
    const double g2 = noise ? 4.0 * m.lr * m.lr / static_cast<double>(m.batch) : 0.0;
    for (Index k = 0; k < p; ++k) {
        const double f = 2.0 * m.lr * a[k];
        for (Index r = 0; r < ps; ++r) {
            dM[k * ps + r] = f * (work.tau * M[k * ps + r] + 2.0 * work.X[k * ps + r]);
        }
        for (Index l = 0; l < p; ++l) {
            const Index kl = k * p + l;
            dQ[kl] = 2.0 * m.lr * (a[k] + a[l]) * (work.tau * Q[kl] + 2.0 * work.G[kl]) +
                     g2 * a[k] * a[l] * (work.second(kl, Q) + m.noise_var * Q[kl]);
        }
        da[k] = m.second_layer_lr * (work.tau * Q[k * p + k] + 2.0 * work.G[k * p + k]);
    }
}

// Joint covariance of student and teacher fields, (n, n).
std::vector<double> joint_covariance(const Model& m, const double* Q, const double* M) {
    const Index n = m.p + m.ps;
    std::vector<double> omega(n * n);
    for (Index k = 0; k < m.p; ++k) {
        for (Index l = 0; l < m.p; ++l) omega[k * n + l] = Q[k * m.p + l];
        for (Index r = 0; r < m.ps; ++r) {
            omega[k * n + m.p + r] = omega[(m.p + r) * n + k] = M[k * m.ps + r];
        }
    }
    for (Index r = 0; r < m.ps; ++r) {
        for (Index s = 0; s < m.ps; ++s) omega[(m.p + r) * n + m.p + s] = m.P[r * m.ps + s];
    }
    return omega;
}

std::vector<double> signed_weights(const Model& m, const double* a) {
    std::vector<double> c(m.p + m.ps);
    for (Index k = 0; k < m.p; ++k) c[k] = -a[k];
    std::copy(m.a_star.begin(), m.a_star.end(), c.begin() + m.p);
    return c;
}

// erf and ReLU: sums of the Gaussian kernels over all fields.
void committee_drift(const Model& m, bool noise, const double* Q, const double* M, const double* a,
                     double* dQ, double* dM) {
    const Index p = m.p, ps = m.ps, n = p + ps;
    const std::vector<double> omega = joint_covariance(m, Q, M), c = signed_weights(m, a);
    const auto cov = [&](Index i, Index j) { return omega[i * n + j]; };
    // E[e g'(lambda_k) z_v]
    const auto first = [&](Index k, Index v) {
        double s = m.offset * kernel_slope_field(m.activation, cov(k, k), cov(k, v));
        for (Index i = 0; i < n; ++i) {
            s += c[i] * kernel_slope_field_value(m.activation, cov(k, k), cov(k, v), cov(k, i),
                                                 cov(v, i), cov(i, i));
        }
        return s;
    };
    for (Index k = 0; k < p; ++k) {
        for (Index r = 0; r < ps; ++r) dM[k * ps + r] = m.lr * a[k] * first(k, p + r);
        for (Index l = 0; l <= k; ++l) {
            double d = m.lr * (a[k] * first(k, l) + a[l] * first(l, k));
            if (noise) {
                double s = (m.offset * m.offset + m.noise_var) *
                           kernel_slope_slope(m.activation, cov(k, k), cov(k, l), cov(l, l));
                for (Index i = 0; i < n; ++i) {
                    if (m.offset != 0.0) {
                        s += 2.0 * m.offset * c[i] *
                             kernel_slope_slope_value(m.activation, omega.data(), n, k, l, i);
                    }
                    for (Index j = 0; j <= i; ++j) {
                        s += (i == j ? 1.0 : 2.0) * c[i] * c[j] *
                             kernel_slope_slope_value_value(m.activation, omega.data(), n, k, l, i,
                                                            j);
                    }
                }
                d += m.lr * m.lr / static_cast<double>(m.batch) * a[k] * a[l] * s;
            }
            dQ[k * p + l] = dQ[l * p + k] = d;
        }
    }
}

void drift_with(const Model& m, bool noise, const double* Q, const double* M, const double* a,
                double* dQ, double* dM, double* da, Moments& work) {
    const Index p = m.p, ps = m.ps;
    if (m.activation == Activation::QUADRATIC) {
        quadratic_drift(m, noise, Q, M, a, dQ, dM, da, work);
    } else {
        committee_drift(m, noise, Q, M, a, dQ, dM);
        std::fill(da, da + p, 0.0);
    }
    if (!m.spherical) return;
    for (Index k = 0; k < p; ++k) {
        const double fk = dQ[k * p + k] / Q[k * p + k];
        for (Index r = 0; r < ps; ++r) dM[k * ps + r] -= 0.5 * fk * M[k * ps + r];
    }
    std::vector<double> f(p);
    for (Index k = 0; k < p; ++k) f[k] = dQ[k * p + k] / Q[k * p + k];
    for (Index k = 0; k < p; ++k) {
        for (Index l = 0; l < p; ++l) dQ[k * p + l] -= 0.5 * (f[k] + f[l]) * Q[k * p + l];
        dQ[k * p + k] = 0.0;
    }
}

class OverlapEquations : public OdeSystem {
  public:
    OverlapEquations(const Model& model, bool noise)
        : m_(model),
          noise_(noise),
          trained_(model.second_layer_lr != 0.0),
          symmetric_(model.activation == Activation::QUADRATIC && !model.spherical && !trained_ &&
                     std::all_of(m_.a.begin(), m_.a.end(), [&](double a) { return a == m_.a[0]; })),
          rotation_(MatrixXd::Identity(m_.p, m_.p)),
          Q_(m_.p * m_.p),
          dQ_(m_.p * m_.p),
          da_(m_.p) {}

    Index size() const override {
        return m_.p * m_.ps + m_.p * (m_.p + 1) / 2 + (trained_ ? m_.p : 0);
    }

    void rhs(const double* y, double* dy) override {
        const Index p = m_.p, triangle = p * m_.ps, tail = triangle + p * (p + 1) / 2;
        unpack(y + triangle, Q_.data());
        const double* a = trained_ ? y + tail : m_.a.data();
        drift_with(m_, noise_, Q_.data(), y, a, dQ_.data(), dy, trained_ ? dy + tail : da_.data(),
                   work_);
        pack(dQ_.data(), dy + triangle);
    }

    // With a uniform second layer the units may be rotated among each other: go to the eigenbasis
    // of Q, where the slowly decaying surplus directions are entries of their own.
    bool change_coordinates(std::vector<double>& y) override {
        if (!symmetric_) return false;
        unpack(y.data() + m_.p * m_.ps, Q_.data());
        const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(
            Map<const MatrixXd>(Q_.data(), m_.p, m_.p));
        rotate(eigen.eigenvectors().transpose(), y.data(), y.data());
        rotation_ *= eigen.eigenvectors();
        rotated_ = true;
        return true;
    }

    void observe(const double* y, double* out) override {
        if (rotated_) {
            rotate(rotation_, y, out);
        } else {
            OdeSystem::observe(y, out);
        }
    }

  private:
    void unpack(const double* triangle, double* Q) const {
        for (Index k = 0; k < m_.p; ++k) {
            for (Index l = k; l < m_.p; ++l) Q[k * m_.p + l] = Q[l * m_.p + k] = *triangle++;
        }
    }

    void pack(const double* Q, double* triangle) const {
        for (Index k = 0; k < m_.p; ++k) {
            for (Index l = k; l < m_.p; ++l) *triangle++ = Q[k * m_.p + l];
        }
    }

    // (M, Q) -> (R M, R Q R^T)
    void rotate(const MatrixXd& R, const double* y, double* out) const {
        const Index p = m_.p, ps = m_.ps;
        RowMatrix Q(p, p);
        unpack(y + p * ps, Q.data());
        const RowMatrix M = R * Map<const RowMatrix>(y, p, ps);
        Q = R * Q * R.transpose();
        std::copy(M.data(), M.data() + p * ps, out);
        pack(Q.data(), out + p * ps);
    }

    Model m_;
    bool noise_, trained_, symmetric_, rotated_ = false;
    MatrixXd rotation_;
    std::vector<double> Q_, dQ_, da_;
    Moments work_;
};

class ModeEquations : public OdeSystem {
  public:
    ModeEquations(const Model& model, bool noise) : m_(model), noise_(noise) {}

    Index size() const override { return m_.p + m_.ps; }

    void rhs(const double* y, double* dy) override {
        const Index p = m_.p, ps = m_.ps, r = std::min(p, ps);
        const double a = m_.a[0], as = m_.a_star[0], rho = m_.P[0];
        const double eta = m_.lr * a, sigma = as * rho;
        const double *m = y, *q = y + ps;
        double tau = m_.offset + ps * sigma, kappa = ps * sigma * sigma;
        for (Index i = 0; i < p; ++i) {
            tau -= a * q[i];
            kappa += a * a * q[i] * q[i];
        }
        for (Index i = 0; i < r; ++i) kappa -= 2.0 * a * as * m[i] * m[i];
        const double e2 = noise_ ? 4.0 * eta * eta / static_cast<double>(m_.batch) : 0.0;
        std::fill(dy, dy + ps, 0.0);
        for (Index i = 0; i < p; ++i) {
            const double s = a * q[i];
            const double m2 = i < r ? as * m[i] * m[i] : 0.0;
            const double g = m2 - s * q[i];
            const double h = as * rho * m2 - 2.0 * s * m2 + s * s * q[i];
            dy[ps + i] =
                4.0 * eta * (tau * q[i] + 2.0 * g) +
                e2 * ((tau * tau + 2.0 * kappa + m_.noise_var) * q[i] + 4.0 * tau * g + 8.0 * h);
            if (i < r) dy[i] = 2.0 * eta * (tau + 2.0 * sigma - 2.0 * s) * m[i];
        }
    }

  private:
    Model m_;
    bool noise_;
};

// W' = sqrt(a/N) W is V B^{-1/2} (X, Y) Phi with Phi = exp(2 eta phi + 4 eta S* t) and
// B = I + 8 eta (X, Y) (int Phi^2) (X, Y)^T; the rotation V keeps dW W^{-1} symmetric.
class RiccatiEquations : public OdeSystem {
  public:
    RiccatiEquations(const Model& model, const std::vector<double>& sigma,
                     const std::vector<double>& X, const std::vector<double>& Y)
        : p_(model.p),
          ps_(model.ps),
          eta_(model.lr * model.a[0]),
          offset_(model.offset),
          sigma_(Map<const Eigen::VectorXd>(sigma.data(), ps_)),
          X_(Map<const RowMatrix>(X.data(), p_, ps_)),
          YY_(Map<const RowMatrix>(Y.data(), p_, p_) *
              Map<const RowMatrix>(Y.data(), p_, p_).transpose()) {}

    // t, phi, ps integrals, one integral, V row-major.
    Index size() const override { return ps_ + 3 + p_ * p_; }

    void rhs(const double* y, double* dy) override {
        const double t = y[0], phi = y[1];
        const Map<const Eigen::VectorXd> I(y + 2, ps_);
        const double rest = y[2 + ps_];
        const Map<const RowMatrix> V(y + 3 + ps_, p_, p_);
        const Eigen::VectorXd growth = (4.0 * eta_ * phi + 8.0 * eta_ * t * sigma_.array()).exp();
        const double plain = std::exp(4.0 * eta_ * phi);

        const MatrixXd B = MatrixXd::Identity(p_, p_) +
                           8.0 * eta_ * (X_ * I.asDiagonal() * X_.transpose() + rest * YY_);
        const MatrixXd slope = X_ * growth.asDiagonal() * X_.transpose() + plain * YY_;
        const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(B);
        const MatrixXd& E = eigen.eigenvectors();
        const Eigen::VectorXd c = eigen.eigenvalues().cwiseSqrt();
        MatrixXd turn = E.transpose() * slope * E;
        double trace = 0.0;
        for (Index i = 0; i < p_; ++i) trace += turn(i, i) / (c[i] * c[i]);
        for (Index i = 0; i < p_; ++i) {
            for (Index j = 0; j < p_; ++j) {
                turn(i, j) *= 4.0 * eta_ * (c[j] - c[i]) / (c[i] * c[j] * (c[i] + c[j]));
            }
        }
        dy[0] = 1.0;
        dy[1] = offset_ + sigma_.sum() - trace;
        Map<Eigen::VectorXd>(dy + 2, ps_) = growth;
        dy[2 + ps_] = plain;
        Map<RowMatrix>(dy + 3 + ps_, p_, p_) = V * E * turn * E.transpose();
    }

  private:
    Index p_, ps_;
    double eta_, offset_;
    Eigen::VectorXd sigma_;
    MatrixXd X_, YY_;
};

}  // namespace

double risk(const Model& m, const double* Q, const double* M, const double* a) {
    if (m.activation == Activation::QUADRATIC) {
        Moments s;
        scalars(m, Q, M, a, s);
        return std::max(s.risk(), 0.0);
    }
    const Index n = m.p + m.ps;
    const std::vector<double> omega = joint_covariance(m, Q, M), c = signed_weights(m, a);
    double r = m.offset * m.offset;
    for (Index i = 0; i < n; ++i) {
        r += 2.0 * m.offset * c[i] * kernel_value(m.activation, omega[i * n + i]);
        for (Index j = 0; j < n; ++j) {
            r += c[i] * c[j] *
                 kernel_value_value(m.activation, omega[i * n + i], omega[i * n + j],
                                    omega[j * n + j]);
        }
    }
    return std::max(0.5 * r, 0.0);
}

double risk_in_frame(const Model& m, const double* Lstar, const double* Bm, const double* Qperp,
                     const double* a) {
    const Map<const RowMatrix> L(Lstar, m.ps, m.ps), B(Bm, m.p, m.ps), Q(Qperp, m.p, m.p);
    const Map<const Eigen::VectorXd> as(m.a_star.data(), m.ps), av(a, m.p);
    if (m.activation != Activation::QUADRATIC) {
        const RowMatrix full = Q + B * B.transpose(), M = B * L.transpose();
        return risk(m, full.data(), M.data(), a);
    }
    // R = (tau^2 + 2 |D|^2)/2 with D = L*^T A* L* - (Bm, L)^T A (Bm, L), block by block.
    const MatrixXd AB = av.asDiagonal() * B, AQ = av.asDiagonal() * Q;
    const MatrixXd teacher = L.transpose() * as.asDiagonal() * L - B.transpose() * AB;
    const double tau = m.offset + teacher.trace() - AQ.trace();
    const double mixed = std::max((AB.transpose() * Q * AB).trace(), 0.0);
    const double rest = (AQ.array() * AQ.transpose().array()).sum();
    return 0.5 * tau * tau + teacher.squaredNorm() + 2.0 * mixed + rest;
}

void drift(const Model& model, bool noise, const double* Q, const double* M, const double* a,
           double* dQ, double* dM, double* da) {
    Moments work;
    drift_with(model, noise, Q, M, a, dQ, dM, da, work);
}

void mean_step(const Model& m, double dim, const double* Q, const double* M, double* next_Q,
               double* next_M) {
    Moments w;
    const double* a = m.a.data();
    moments(m, Q, M, a, w);
    const double b = m.offset, tau0 = w.tau - b, B = static_cast<double>(m.batch);
    for (Index k = 0; k < m.p; ++k) {
        for (Index r = 0; r < m.ps; ++r) {
            const Index kr = k * m.ps + r;
            next_M[kr] = M[kr] + 2.0 * m.lr * a[k] / dim * (w.tau * M[kr] + 2.0 * w.X[kr]);
        }
        for (Index l = 0; l < m.p; ++l) {
            const Index kl = k * m.p + l;
            const double q = Q[kl], g = w.G[kl], h = w.H[kl];
            // Moments of order 6, 4 and 2 in the inputs; each gains (dim + order)/dim from |x|^2.
            const double v6 = (tau0 * tau0 + 2.0 * w.kappa) * q + 4.0 * tau0 * g + 8.0 * h;
            const double v4 = 2.0 * b * (tau0 * q + 2.0 * g);
            const double v2 = (b * b + m.noise_var) * q;
            const double same =
                (1.0 + 6.0 / dim) * v6 + (1.0 + 4.0 / dim) * v4 + (1.0 + 2.0 / dim) * v2;
            const double cross = (w.tau * w.tau * q + 4.0 * w.tau * g + 4.0 * h) / dim;
            next_Q[kl] =
                q + 2.0 * m.lr * (a[k] + a[l]) / dim * (w.tau * q + 2.0 * g) +
                4.0 * m.lr * m.lr * a[k] * a[l] / dim * (same / B + (1.0 - 1.0 / B) * cross);
        }
    }
}

std::unique_ptr<OdeSystem> overlap_equations(const Model& model, bool noise) {
    return std::make_unique<OverlapEquations>(model, noise);
}

std::unique_ptr<OdeSystem> riccati_equations(const Model& model, const std::vector<double>& sigma,
                                             const std::vector<double>& X,
                                             const std::vector<double>& Y) {
    return std::make_unique<RiccatiEquations>(model, sigma, X, Y);
}

std::unique_ptr<OdeSystem> mode_equations(const Model& model, bool noise) {
    return std::make_unique<ModeEquations>(model, noise);
}

}  // namespace overparam::sgd
