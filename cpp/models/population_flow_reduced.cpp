#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "models/population_flow.hpp"
#include "models/population_flow_shared.hpp"

namespace overparam::population_flow {

namespace {

using Eigen::ArrayXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// Implicit QL iteration on a symmetric tridiagonal matrix (`diagonal`; `beside`, one entry longer
// than the subdiagonal): eigenvalues into
// `diagonal`, and the columns of `vectors` multiplied by the eigenvectors from the right, without
// forming them.
void diagonalise(VectorXd& diagonal, VectorXd& beside, MatrixXd& vectors) {
    const Index n = diagonal.size();
    for (Index l = 0; l < n; ++l) {
        for (int iteration = 0; iteration < 100; ++iteration) {
            Index end = l;
            for (; end < n - 1; ++end) {
                const double size = std::abs(diagonal(end)) + std::abs(diagonal(end + 1));
                if (std::abs(beside(end)) <= std::numeric_limits<double>::epsilon() * size) break;
            }
            if (end == l) break;
            double g = (diagonal(l + 1) - diagonal(l)) / (2.0 * beside(l));
            double length = std::hypot(g, 1.0);
            g = diagonal(end) - diagonal(l) + beside(l) / (g + std::copysign(length, g));
            double sine = 1.0, cosine = 1.0, removed = 0.0;
            Index i = end - 1;
            for (; i >= l; --i) {
                const double f = sine * beside(i), b = cosine * beside(i);
                length = std::hypot(f, g);
                beside(i + 1) = length;
                if (length == 0.0) {
                    diagonal(i + 1) -= removed;
                    break;
                }
                sine = f / length;
                cosine = g / length;
                g = diagonal(i + 1) - removed;
                const double turned = (diagonal(i) - g) * sine + 2.0 * cosine * b;
                removed = sine * turned;
                diagonal(i + 1) = g + removed;
                g = cosine * turned - b;
                double* left = vectors.col(i).data();
                double* right = vectors.col(i + 1).data();
                for (Index k = 0; k < vectors.rows(); ++k) {
                    const double x = left[k], y = right[k];
                    right[k] = sine * x + cosine * y;
                    left[k] = cosine * x - sine * y;
                }
            }
            if (length == 0.0 && i >= l) {
                beside(end) = 0.0;
                continue;
            }
            diagonal(l) -= removed;
            beside(l) = g;
            beside(end) = 0.0;
        }
    }
}

// Rows of W0 by the sign of mu, in student coordinates in which the teacher's rows are [R 0].
struct Blocks {
    std::vector<Index> learned, null;
    MatrixXd upper;   // R^T, upper triangular (r, r)
    MatrixXd first;   // C1^T (r, d - r)
    MatrixXd second;  // C2^T (m - r, d - r)
};

Blocks split(const Model& model, const double* W0) {
    Blocks b;
    const Index d = model.d(), m = model.m;
    for (Index i = 0; i < d; ++i) (model.mu[i] > 0.0 ? b.learned : b.null).push_back(i);
    const Index r = static_cast<Index>(b.learned.size()), rest = d - r;
    const Eigen::Map<const MatrixXd> transposed(W0, m, d);
    MatrixXd rows(m, r), others(m, rest);
    for (Index i = 0; i < r; ++i) rows.col(i) = transposed.col(b.learned[i]);
    for (Index i = 0; i < rest; ++i) others.col(i) = transposed.col(b.null[i]);
    const Eigen::HouseholderQR<MatrixXd> qr(rows);
    b.upper = qr.matrixQR().topRows(r).triangularView<Eigen::Upper>();
    if (rest > 0) others.applyOnTheLeft(qr.householderQ().adjoint());
    b.first = others.topRows(r);
    b.second = others.bottomRows(m - r);
    return b;
}

class ReducedFlow : public OdeSystem {
  public:
    ReducedFlow(const Model& model, const double* W0, bool keep)
        : kappa_(model.kappa), lam_(model.lam), d_(model.d()), keep_(keep) {
        blocks_ = split(model, W0);
        r_ = static_cast<Index>(blocks_.learned.size());
        mu_.resize(r_);
        for (Index i = 0; i < r_; ++i) mu_(i) = model.mu[blocks_.learned[i]];
        double square = 0.0;
        for (Index i = 0; i < d_ * model.m; ++i) square += W0[i] * W0[i];
        unit_ = square / static_cast<double>(model.m);
        const double scale = 1.0 / std::sqrt(unit_);
        blocks_.upper *= scale;
        blocks_.first *= scale;
        blocks_.second *= scale;

        // W0 = [R 0; C1 C2]. C2 C2^T = U diag(a) U^T, and the rows of U^T C1: those with a > 0 in
        // `F`, of the others only the Gram matrix matters.
        const Index rest = d_ - r_, free = model.m - r_;
        MatrixXd F(r_, 0), R3(0, r_);
        VectorXd beside;
        if (free > 0 && rest > 0) {
            MatrixXd square2, X;
            if (rest > free) {
                MatrixXd both(rest, free + r_);
                both.leftCols(free) = blocks_.second.transpose();
                both.rightCols(r_) = blocks_.first.transpose();
                const Eigen::HouseholderQR<MatrixXd> qr(std::move(both));
                const Index rows = std::min(rest, free + r_);
                const MatrixXd R2 =
                    qr.matrixQR().topLeftCorner(free, free).triangularView<Eigen::Upper>();
                X = qr.matrixQR().block(0, free, free, r_);
                R3 =
                    qr.matrixQR().block(free, free, rows - free, r_).triangularView<Eigen::Upper>();
                square2.noalias() = R2 * R2.transpose();
            } else {
                square2.noalias() = blocks_.second.transpose() * blocks_.second;
                X = blocks_.first.transpose();
            }
            const Index n = square2.rows();
            if (n == 1) {
                a_ = square2.col(0);
                F = X.transpose();
            } else {
                const Eigen::Tridiagonalization<MatrixXd> tridiagonal(square2);
                X.applyOnTheLeft(tridiagonal.matrixQ().adjoint());
                VectorXd diagonal = tridiagonal.diagonal();
                beside.setZero(n);
                beside.head(n - 1) = tridiagonal.subDiagonal();
                F = X.transpose();
                diagonalise(diagonal, beside, F);
                a_ = diagonal;
            }
            a_ = a_.cwiseMax(0.0);
        } else if (rest > 0) {
            R3 = blocks_.first.transpose();
        }
        // In the teacher's coordinates: rows times R^{-1}.
        const auto upper = blocks_.upper.triangularView<Eigen::Upper>();
        inverse_ = upper.solve(MatrixXd::Identity(r_, r_));  // R^{-T}
        start_.noalias() = inverse_ * inverse_.transpose();
        F_ = (inverse_ * F).transpose();
        fixed_ = MatrixXd::Zero(r_, r_);
        if (R3.rows() > 0) {
            const MatrixXd turned = inverse_ * R3.transpose();
            fixed_.noalias() = turned * turned.transpose();
        }
        if (!keep_) {
            blocks_.first.resize(0, 0);
            blocks_.second.resize(0, 0);
        }
    }

    // tau, sigma (in units of S0), k0, then y_i = k_i / (1 + e_i^2) without the part of the null
    // directions, and p_i = y_i - L_i / (2 mu_i).
    Index size() const override { return 3 + 2 * r_; }
    Index observed_size() const override { return FIELDS + (keep_ ? d_ * d_ : 0); }
    bool implicit() const override { return true; }

    std::vector<double> start() const {
        std::vector<double> y(size(), 0.0);
        y[1] = -0.5 * std::log(unit_);
        const double L = unit_ / (1.0 + unit_);
        for (Index i = 0; i < r_; ++i) y[3 + r_ + i] = -0.5 * L / mu_(i);
        return y;
    }

    void rhs(const double* y, double* dy) override {
        evaluate(y);
        const double tau = y[0];
        dy[0] = 1.0;
        dy[1] = s_;
        dy[2] = decay_;
        for (Index i = 0; i < r_; ++i) {
            const double mu = mu_(i), L = L_(i);
            const double rate = 2.0 * (mu - s_) * L;
            dy[3 + i] = -L * std::expm1(-2.0 * tau * mu) - rate * y[3 + i];
            dy[3 + r_ + i] =
                defect_rate(L, N_(i), s_, mu, std::exp(-2.0 * tau * mu), y[3 + i], y[3 + r_ + i]);
        }
    }

    void observe(const double* y, double* out) override {
        evaluate(y);
        const ArrayXd root = L_.sqrt(), out_root = N_.sqrt();
        // A = S** - diag(mu), by columns: without cancellation where the direction has grown.
        MatrixXd learned = root.matrix().asDiagonal() * inverse_H_ * root.matrix().asDiagonal();
        MatrixXd difference = learned;
        difference.diagonal() -= mu_.matrix();
        MatrixXd defect = noise_;
        defect.diagonal() += 2.0 * p_.matrix();
        const MatrixXd product = inverse_H_ * defect;
        for (Index j = 0; j < r_; ++j) {
            if (L_(j) >= 0.5)
                difference.col(j) = -product.col(j).array() * root * (mu_(j) / root(j));
        }
        const MatrixXd weighted =
            out_root.matrix().asDiagonal() * K2_ * out_root.matrix().asDiagonal();
        const MatrixXd gain = inverse_H_ * weighted;  // similar to Sigma^{-1} K2
        double cross = 0.0;
        const MatrixXd sandwich = gain * inverse_H_;
        for (Index i = 0; i < r_; ++i) cross += L_(i) * sandwich(i, i);
        const ArrayXd ac = a_.array() * c0_;
        const MatrixXd K3 = F_.transpose() * (c0_ * c0_ * ac).matrix().asDiagonal() * F_;
        const double mixed =
            (inverse_H_.array() *
             (out_root.matrix().asDiagonal() * K3 * out_root.matrix().asDiagonal()).array())
                .sum();
        const double null2 =
            decay_ * decay_ *
            ((ac * ac).sum() + 2.0 * mixed + (gain.array() * gain.transpose().array()).sum());
        const double distance2 = difference.squaredNorm() + 2.0 * decay_ * cross + null2;
        out[DISTANCE2] = distance2;
        out[LOSS] = distance2 + kappa_ * deviation_ * deviation_;
        out[TRACE] = mu_.sum() + deviation_;
        out[OVERLAP] = (mu_ * learned.diagonal().array()).sum();
        out[SHIFT] = s_;
        out[SHIFT_INTEGRAL] = y[1] + 0.5 * std::log(unit_);
        if (keep_) matrix(y, learned, out + FIELDS);
    }

  private:
    void evaluate(const double* y) {
        const double tau = y[0], sigma = y[1], k0 = y[2];
        const Eigen::Map<const ArrayXd> grown(y + 3, r_);
        p_ = Eigen::Map<const ArrayXd>(y + 3 + r_, r_);
        decay_ = std::exp(-2.0 * sigma);
        L_ = 1.0 / (1.0 + (-2.0 * (tau * mu_ - sigma)).exp());
        N_ = 1.0 / (1.0 + (2.0 * (tau * mu_ - sigma)).exp());
        c0_ = 1.0 / (1.0 + 2.0 * k0 * a_.array());
        scaled_ = F_;
        scaled_.array().colwise() *= c0_;
        K1_ = fixed_;
        K1_.noalias() += scaled_.transpose() * F_;
        K2_ = fixed_;
        K2_.noalias() += scaled_.transpose() * scaled_;
        const ArrayXd root = N_.sqrt();
        noise_ = start_ + 2.0 * k0 * K1_;
        noise_.diagonal().array() += 2.0 * k0;
        noise_.array().colwise() *= root;
        noise_.array().rowwise() *= root.transpose();
        H_ = noise_;
        H_.diagonal().array() += 2.0 * grown.max(0.0);
        const Eigen::LLT<MatrixXd> factor(H_);
        inverse_H_ = factor.solve(MatrixXd::Identity(r_, r_));
        if (factor.info() != Eigen::Success) inverse_H_.setConstant(NAN);
        deviation_ = 0.0;
        for (Index j = 0; j < r_; ++j) {
            if (L_(j) >= 0.5) {
                const double defect =
                    inverse_H_.row(j).dot(noise_.col(j)) + 2.0 * inverse_H_(j, j) * p_(j);
                deviation_ -= mu_(j) * defect;
            } else {
                deviation_ += L_(j) * inverse_H_(j, j) - mu_(j);
            }
        }
        double turned = 0.0;
        for (Index j = 0; j < r_; ++j) {
            for (Index i = 0; i < r_; ++i) {
                turned += inverse_H_(i, j) * K2_(i, j) * root(i) * root(j);
            }
        }
        deviation_ += decay_ * ((a_.array() * c0_).sum() + turned);
        s_ = kappa_ * deviation_ + lam_;
    }

    // S in the order of the rows of W0.
    void matrix(const double* y, const MatrixXd& learned, double* S) const {
        const double k0 = y[2];
        const Index rest = d_ - r_;
        Eigen::Map<MatrixXd> out(S, d_, d_);
        for (Index j = 0; j < r_; ++j) {
            for (Index i = 0; i < r_; ++i)
                out(blocks_.learned[i], blocks_.learned[j]) = learned(i, j);
        }
        if (rest == 0) return;
        // (I + 2 k0 C2 C2^T)^{-1} applied to C1 and C2.
        const MatrixXd &C1t = blocks_.first, &C2t = blocks_.second;
        MatrixXd reduced = C1t, null = MatrixXd::Zero(rest, rest);
        if (C2t.rows() > 0) {
            MatrixXd M = 2.0 * k0 * C2t * C2t.transpose();
            M.diagonal().array() += 1.0;
            const Eigen::LLT<MatrixXd> factor(M);
            const MatrixXd solved = factor.solve(C2t);
            reduced.noalias() -= 2.0 * k0 * (C1t * C2t.transpose()) * solved;
            null.noalias() = C2t.transpose() * solved;
        }
        const MatrixXd V = N_.sqrt().matrix().asDiagonal() * inverse_;
        const MatrixXd VC = V * reduced;
        null.noalias() += VC.transpose() * inverse_H_ * VC;
        null *= decay_;
        const MatrixXd cross =
            std::sqrt(decay_) * (L_.sqrt().matrix().asDiagonal() * (inverse_H_ * VC));
        for (Index j = 0; j < rest; ++j) {
            for (Index i = 0; i < rest; ++i) out(blocks_.null[i], blocks_.null[j]) = null(i, j);
            for (Index i = 0; i < r_; ++i) {
                out(blocks_.learned[i], blocks_.null[j]) = cross(i, j);
                out(blocks_.null[j], blocks_.learned[i]) = cross(i, j);
            }
        }
    }

    double kappa_, lam_, unit_;
    Index d_, r_;
    bool keep_;
    Blocks blocks_;
    ArrayXd mu_;
    VectorXd a_;
    MatrixXd inverse_, start_, F_, fixed_;
    // Of the last state: exp(-2 sigma), L = e^2/(1 + e^2), N = 1 - L, and what follows from them.
    double decay_ = 0.0, deviation_ = 0.0, s_ = 0.0;
    ArrayXd L_, N_, c0_, p_;
    MatrixXd scaled_, K1_, K2_, noise_, H_, inverse_H_;
};

// Each student direction with c = cos^2 > 0 spans with its teacher direction a plane in which S has
// rank one; all follow from three scalars.
class OrthonormalFlow : public OdeSystem {
  public:
    OrthonormalFlow(const std::vector<double>& cosines2, const std::vector<double>& counts,
                    double rank, double kappa, double lam, double s0)
        : kappa_(kappa), lam_(lam), rank_(rank), log_s0_(std::log(s0)) {
        for (std::size_t j = 0; j < cosines2.size(); ++j) {
            if (cosines2[j] > 0.0) {
                c_.push_back(cosines2[j]);
                counts_.push_back(counts[j]);
                facing_ += counts[j];
            } else {
                null_ += counts[j];
            }
        }
    }

    // tau, sigma, log of the eigenvalue of a null direction, y and p as in ReducedFlow.
    Index size() const override { return 5; }
    Index observed_size() const override { return FIELDS; }
    bool implicit() const override { return true; }
    std::vector<double> start() const { return {0.0, 0.0, log_s0_, 0.0, -0.25}; }

    void rhs(const double* y, double* dy) override {
        const Shared v = shared(y);
        double deviation = null_ * v.null - (rank_ - facing_);
        for (std::size_t j = 0; j < c_.size(); ++j) {
            const double c = c_[j];
            const double defect = v.null * (1.0 - c) * v.w -
                                  (v.late ? v.w + 2.0 * v.p * c : v.w + (2.0 * v.y - v.L) * c);
            deviation += counts_[j] * defect / (v.w + 2.0 * v.y * c);
        }
        const double s = kappa_ * deviation + lam_;
        const double decay = std::exp(-2.0 * y[0]), rate = 2.0 * (1.0 - s) * v.L;
        dy[0] = 1.0;
        dy[1] = s;
        dy[2] = -2.0 * (s + v.null);
        dy[3] = v.L * (1.0 - decay) - rate * y[3];
        dy[4] = defect_rate(v.L, 1.0 / (1.0 + std::exp(2.0 * (y[0] - y[1]))), s, 1.0, decay, y[3],
                            y[4]);
    }

    void observe(const double* y, double* out) override {
        const Shared v = shared(y);
        double deviation = null_ * v.null - (rank_ - facing_);
        double distance2 = null_ * v.null * v.null + (rank_ - facing_), overlap = 0.0;
        for (std::size_t j = 0; j < c_.size(); ++j) {
            const double c = c_[j], total = v.w + 2.0 * v.y * c;
            const double along = v.L * c / total, beside = v.null * (1.0 - c) * v.w / total;
            const double missing =
                (v.late ? v.w + 2.0 * v.p * c : v.w + (2.0 * v.y - v.L) * c) / total;
            deviation += counts_[j] * (beside - missing);
            distance2 += counts_[j] * (missing * missing + (2.0 * along + beside) * beside);
            overlap += counts_[j] * along;
        }
        out[DISTANCE2] = distance2;
        out[LOSS] = distance2 + kappa_ * deviation * deviation;
        out[TRACE] = rank_ + deviation;
        out[OVERLAP] = overlap;
        out[SHIFT] = kappa_ * deviation + lam_;
        out[SHIFT_INTEGRAL] = y[1];
    }

  private:
    struct Shared {
        double L, w, null, y, p;
        bool late;
    };
    static Shared shared(const double* y) {
        const double x = 2.0 * (y[0] - y[1]);
        const double softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
        Shared v;
        v.L = 1.0 / (1.0 + std::exp(-x));
        v.w = std::exp(-2.0 * y[1] - y[2] - softplus);
        v.null = std::exp(y[2]);
        v.y = std::max(y[3], 0.0);
        v.p = y[4];
        v.late = v.L >= 0.5;
        return v;
    }

    double kappa_, lam_, rank_, log_s0_, facing_ = 0.0, null_ = 0.0;
    std::vector<double> c_, counts_;
};

template <class Flow>
std::unique_ptr<Run> integrate(std::unique_ptr<Flow> flow, const Numerics& n) {
    std::vector<double> start = flow->start();
    return std::make_unique<OdeIntegrator>(std::move(flow), std::move(start), n.t, n.rtol, n.atol,
                                           OdeMethod::AUTO, n.max_steps);
}

}  // namespace

double condition(const Model& model, const double* W0) {
    const Blocks b = split(model, W0);
    if (b.upper.rows() == 0) return 1.0;
    if ((b.upper.diagonal().array() == 0.0).any()) return std::numeric_limits<double>::infinity();
    const double reciprocal = b.upper.partialPivLu().rcond();
    return reciprocal > 0.0 ? 1.0 / reciprocal : std::numeric_limits<double>::infinity();
}

std::unique_ptr<Run> reduced(const Model& model, const double* W0, const Numerics& numerics,
                             bool keep) {
    return integrate(std::make_unique<ReducedFlow>(model, W0, keep), numerics);
}

std::unique_ptr<Run> orthonormal(const std::vector<double>& cosines2,
                                 const std::vector<double>& counts, double rank, double kappa,
                                 double lam, double s0, const Numerics& numerics) {
    return integrate(std::make_unique<OrthonormalFlow>(cosines2, counts, rank, kappa, lam, s0),
                     numerics);
}

}  // namespace overparam::population_flow
