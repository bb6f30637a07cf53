// The readout with the square loss: sections 4, 6.1 and 6.2 of docs/papers/giant_step.md.
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <utility>

#include "models/giant_step.hpp"

namespace overparam::giant_step {

namespace {

constexpr Index MAX_ITERATIONS = 1000;
constexpr double TOLERANCE = 1e-12;
constexpr std::size_t DEPTH = 5;  // of Anderson's acceleration
// Eigenvalues of the system for m below this fraction of the largest one count as zero.
constexpr double DEPENDENCE = 1e-10;
constexpr double ROUNDING = 1e-15;

using Eigen::Map;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Symmetric matrices (K, K) and vectors (K) as one vector of coordinates: pairs g <= h, then g.
struct Coordinates {
    explicit Coordinates(Index groups) : groups(groups) {
        for (Index g = 0; g < groups; ++g) {
            for (Index h = g; h < groups; ++h) pairs.emplace_back(g, h);
        }
    }

    Index count() const { return static_cast<Index>(pairs.size()) + groups; }
    // A coordinate's multiplicity: off-diagonal entries stand for two.
    double times(Index b) const {
        if (b >= static_cast<Index>(pairs.size())) return 1.0;
        const auto [g, h] = pairs[static_cast<std::size_t>(b)];
        return g == h ? 1.0 : 2.0;
    }

    template <class Matrix, class Vector>
    VectorXd join(const Matrix& A, const Vector& x) const {
        VectorXd out(count());
        Index b = 0;
        for (const auto& [g, h] : pairs) out[b++] = A(g, h);
        for (Index g = 0; g < groups; ++g) out[b++] = x[g];
        return out;
    }

    template <class Matrix, class Vector>
    void split(const VectorXd& in, Matrix& A, Vector& x) const {
        Index b = 0;
        for (const auto& [g, h] : pairs) A(g, h) = A(h, g) = in[b++];
        for (Index g = 0; g < groups; ++g) x[g] = in[b++];
    }

    Index groups;
    std::vector<std::pair<Index, Index>> pairs;
};

// The resolvent of K groups at one (V1h, Lambda); K is 0 where it is only known at run time.
template <int K>
class Bulk {
  public:
    static constexpr int SIZE = K > 0 ? K : Eigen::Dynamic;
    using Matrix = Eigen::Matrix<double, SIZE, SIZE>;
    using Vector = Eigen::Matrix<double, SIZE, 1>;
    using ComplexMatrix = Eigen::Matrix<Complex, SIZE, SIZE>;
    using ComplexVector = Eigen::Matrix<Complex, SIZE, 1>;

    Bulk(const Modes& modes, const std::vector<double>& fraction, double beta)
        : modes_(modes),
          beta_(beta),
          fraction_(Map<const VectorXd>(fraction.data(), static_cast<Index>(fraction.size()))),
          v(Vector::Zero(fraction_.size())),
          V1(Matrix::Zero(groups(), groups())),
          V2(Vector::Zero(groups())),
          V1h(Matrix::Zero(groups(), groups())),
          Lambda(Vector::Zero(groups())),
          N_(ComplexVector::Zero(groups())),
          Y_(ComplexMatrix::Zero(groups(), groups())),
          X_(Y_),
          kap_(Y_),
          slope_(V1) {}

    Index groups() const { return fraction_.size(); }

    // v, V1 and V2 at V1h and Lambda, by Newton's method in log v from the last v, if any.
    Index solve(const Matrix& V1h_given, const Vector& Lambda_given) {
        V1h = V1h_given, Lambda = Lambda_given;
        Index iteration = 0;
        if (groups() == 1 && modes_.count() == 1) {
            quadratic();
        } else {
            if (!(v.minCoeff() > 0.0)) v = Lambda.cwiseInverse();
            Vector S(Vector::Zero(groups()));
            for (; iteration < 200; ++iteration) {
                differentiate(S);
                const Vector total = Lambda + S;
                Matrix J = Matrix::Identity(groups(), groups());
                Vector f(S);
                for (Index g = 0; g < groups(); ++g) {
                    f[g] = -std::log(v[g] * total[g]);
                    for (Index h = 0; h < groups(); ++h) J(g, h) -= slope_(g, h) * v[h] / total[g];
                }
                const Vector step = J.partialPivLu().solve(f);
                for (Index g = 0; g < groups(); ++g) {
                    v[g] *= std::exp(std::clamp(step[g], -3.0, 3.0));
                    if (!(v[g] * Lambda[g] <= 1.0)) v[g] = 1.0 / Lambda[g];
                }
                // Convergence is quadratic: the error that is left is below rounding.
                if (!(step.cwiseAbs().maxCoeff() > 1e-9)) break;
            }
        }
        V1.setZero();
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            V1 += (modes_.weight[at(j)] * kap_).real();
        }
        V1 /= beta_;
        V2 = fraction_.cwiseProduct(v);
        return iteration;
    }

    // Matrices of the direction averages of section 6.1.
    struct Averages {
        Matrix vv, vz, zz, inverse;  // k_vv, k_vz, k_zz and I - k_vv V1h
    };

    Averages averages() {
        const Matrix zero = Matrix::Zero(groups(), groups());
        Averages k{zero, zero, zero, zero};
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            k.vv += (modes_.along[at(j)] * kap_).real();
            k.vz += (modes_.across[at(j)] * kap_).real();
            k.zz += (modes_.orthogonal[at(j)] * kap_).real();
            k.inverse += (modes_.along[at(j)] * Y_.transpose()).real();
        }
        return k;
    }

    // Derivatives of V1, V2 and the averages along (dV1h, dLambda).
    struct Derivative {
        Matrix V1;
        Vector V2;
        Averages k;
    };

    Derivative along(const Matrix& dV1h, const Vector& dLambda) {
        const Matrix zero = Matrix::Zero(groups(), groups());
        Derivative d{zero, Vector::Zero(groups()), {zero, zero, zero, zero}};
        Vector load = dLambda, S(Vector::Zero(groups()));
        differentiate(S);
        Matrix J = Matrix::Identity(groups(), groups());
        for (Index g = 0; g < groups(); ++g) J.row(g) -= v[g] * v[g] * slope_.row(g);
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            const ComplexMatrix dX = Y_ * dV1h * Y_.transpose();
            for (Index g = 0; g < groups(); ++g) {
                load[g] += (modes_.weight[at(j)] * covariance(g, j) * dX(g, g)).real();
            }
        }
        const Vector dv = J.partialPivLu().solve(-v.cwiseAbs2().cwiseProduct(load));
        d.V2 = fraction_.cwiseProduct(dv);
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            ComplexVector dN(N_);
            for (Index g = 0; g < groups(); ++g)
                dN[g] = beta_ * fraction_[g] * covariance(g, j) * dv[g];
            const ComplexMatrix dkap = Y_.transpose() * dN.asDiagonal() * Y_ - kap_ * dV1h * kap_;
            d.V1 += (modes_.weight[at(j)] * dkap).real();
            d.k.vv += (modes_.along[at(j)] * dkap).real();
            d.k.vz += (modes_.across[at(j)] * dkap).real();
            d.k.zz += (modes_.orthogonal[at(j)] * dkap).real();
        }
        d.V1 /= beta_;
        return d;
    }

  private:
    static std::size_t at(Index j) { return static_cast<std::size_t>(j); }

    Complex covariance(Index g, Index j) const {
        return modes_.covariance[at(g * modes_.count() + j)];
    }

    // N, Y, X and kap of one mode.
    void mode(Index j) {
        for (Index g = 0; g < groups(); ++g) N_[g] = beta_ * fraction_[g] * v[g] * covariance(g, j);
        if constexpr (K == 1) {
            Y_(0, 0) = 1.0 / (1.0 + V1h(0, 0) * N_[0]);
        } else {
            const ComplexMatrix A = ComplexMatrix::Identity(groups(), groups()) +
                                    V1h.template cast<Complex>() * N_.asDiagonal();
            Y_ = A.partialPivLu().inverse();
        }
        X_ = Y_ * V1h;
        kap_ = N_.asDiagonal() * Y_;
    }

    // S_g = sum_j rho Sigma_g X_gg and slope_gh = -dS_g/dv_h.
    void differentiate(Vector& S) {
        S.setZero();
        slope_.setZero();
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            for (Index g = 0; g < groups(); ++g) {
                const Complex factor = modes_.weight[at(j)] * covariance(g, j);
                S[g] += (factor * X_(g, g)).real();
                for (Index h = 0; h < groups(); ++h) {
                    slope_(g, h) += beta_ * fraction_[h] *
                                    (factor * X_(g, h) * X_(g, h) * covariance(h, j)).real();
                }
            }
        }
    }

    // One group and one mode: Lambda v + a v/(1 + beta a v) = 1 with a = c V1h.
    void quadratic() {
        const double a = modes_.covariance[0].real() * V1h(0, 0), b = beta_ * a;
        const double p = Lambda[0] + a - b, q = std::sqrt(p * p + 4.0 * Lambda[0] * b);
        v[0] = p > 0.0 ? 2.0 / (p + q) : (q - p) / (2.0 * Lambda[0] * b);
    }

    const Modes& modes_;
    double beta_;
    Vector fraction_;

  public:
    Vector v;
    Matrix V1;
    Vector V2;
    Matrix V1h;
    Vector Lambda;

  private:
    ComplexVector N_;
    ComplexMatrix Y_, X_, kap_;
    Matrix slope_;
};

// Anderson's acceleration of a fixed point, with the differences weighted by `scale`.
class Anderson {
  public:
    VectorXd next(const VectorXd& x, const VectorXd& image, const VectorXd& scale) {
        const VectorXd f = image - x;
        if (x_.size() > 0) {
            steps_.push_back(image - image_);
            changes_.push_back(f - f_);
            if (steps_.size() > DEPTH) steps_.pop_front(), changes_.pop_front();
        }
        x_ = x, f_ = f, image_ = image;
        if (steps_.empty()) return image;
        const Index count = static_cast<Index>(steps_.size());
        MatrixXd F(x.size(), count), G(x.size(), count);
        for (Index i = 0; i < count; ++i) {
            G.col(i) = steps_[static_cast<std::size_t>(i)];
            F.col(i) = changes_[static_cast<std::size_t>(i)].cwiseQuotient(scale);
        }
        return image - G * F.completeOrthogonalDecomposition().solve(f.cwiseQuotient(scale));
    }

    void reset() {
        steps_.clear();
        changes_.clear();
        x_.resize(0);
    }

  private:
    VectorXd x_, f_, image_;
    std::deque<VectorXd> steps_, changes_;
};

// Solution of a symmetric system, the shortest where it is singular.
VectorXd shortest(const MatrixXd& A, const VectorXd& b, double size) {
    const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(0.5 * (A + A.transpose()));
    const VectorXd& values = eigen.eigenvalues();
    const double limit =
        std::max(DEPENDENCE * values.cwiseAbs().maxCoeff(), ROUNDING * ROUNDING * size);
    VectorXd y = eigen.eigenvectors().transpose() * b;
    for (Index i = 0; i < y.size(); ++i)
        y[i] = std::abs(values[i]) > limit ? y[i] / values[i] : 0.0;
    return eigen.eigenvectors() * y;
}

std::vector<double> vector(const MatrixXd& x) {
    const Rows rows = x;
    return {rows.data(), rows.data() + rows.size()};
}

template <int K>
class SquareLoss {
  public:
    using B = Bulk<K>;
    using Matrix = typename B::Matrix;
    using Vector = typename B::Vector;

    SquareLoss(const Tables& tables, const Modes& modes, const Setting& setting)
        : t_(tables),
          s_(setting),
          R_(setting.alpha / setting.beta),
          bulk_(modes, setting.fraction, setting.beta),
          coordinates_(tables.groups()),
          weight_(Map<const VectorXd>(t_.weight.data(), nodes())),
          products_(coordinates_.count(), nodes()),
          damping_(VectorXd::Ones(nodes())) {
        const auto mu1 = rows(t_.linear), residual = rows(t_.residual);
        Index b = 0;
        for (const auto& [g, h] : coordinates_.pairs) {
            products_.row(b++) = mu1.row(g).cwiseProduct(mu1.row(h));
        }
        for (Index g = 0; g < groups(); ++g) products_.row(b++) = residual.row(g);
    }

    Readout solve() {
        Readout out{};
        variances(out);
        means();
        errors(out);
        out.V1 = vector(bulk_.V1), out.V2 = vector(bulk_.V2);
        out.m = vector(m_), out.theta = vector(theta_), out.psi = vector(psi_);
        out.class_error = std::numeric_limits<double>::quiet_NaN();
        const bool finite = std::isfinite(out.risk) && std::isfinite(out.train_risk);
        if (out.status == Status::SUCCESS && !finite) out.status = Status::DIVERGED;
        return out;
    }

  private:
    Index groups() const { return t_.groups(); }
    Index nodes() const { return t_.nodes(); }
    Map<const Rows> rows(const std::vector<double>& x) const {
        return Map<const Rows>(x.data(), groups(), nodes());
    }
    static Map<const VectorXd> column(const std::vector<double>& x) {
        return Map<const VectorXd>(x.data(), static_cast<Index>(x.size()));
    }

    // Vk at all nodes from V1 and V2.
    VectorXd variance() const {
        VectorXd V = coordinates_.join(bulk_.V1, bulk_.V2);
        for (Index b = 0; b < V.size(); ++b) V[b] *= coordinates_.times(b);
        return products_.transpose() * V;
    }

    // Section 4.2: the fixed point of (V1h, V2h). Leaves 1/(1 + Vk) and the bulk at the solution.
    void variances(Readout& out) {
        VectorXd x = R_ * (products_ * weight_);
        const double floor = 1e-30 * x.maxCoeff();
        Matrix V1h = Matrix::Zero(groups(), groups());
        Vector V2h = Vector::Zero(groups());
        Anderson anderson;
        double last = std::numeric_limits<double>::infinity();
        out.status = Status::NOT_CONVERGED;
        for (out.iterations = 1; out.iterations <= MAX_ITERATIONS; ++out.iterations) {
            coordinates_.split(x, V1h, V2h);
            const Vector Lambda = V2h.array() + s_.ridge;
            bulk_.solve(V1h, Lambda);
            damping_ = (1.0 + variance().array()).inverse();
            const VectorXd image = R_ * (products_ * weight_.cwiseProduct(damping_));
            const VectorXd scale = sizes(V1h, Lambda, floor);
            const double change = (image - x).cwiseQuotient(scale).cwiseAbs().maxCoeff();
            out.residual = change;
            if (!(change > TOLERANCE)) {
                out.status = std::isfinite(change) ? Status::SUCCESS : Status::DIVERGED;
                break;
            }
            if (change > 1e3 * last) anderson.reset();
            last = change;
            VectorXd next = anderson.next(x, image, scale);
            if (!admissible(next, floor)) {
                anderson.reset();
                next = image;
            }
            x = next;
        }
        const double trace = bulk_.V1h.cwiseProduct(bulk_.V1).sum();
        out.identity = std::abs(trace + bulk_.Lambda.dot(bulk_.V2) - 1.0);
    }

    // Sizes of the coordinates, which changes are compared with.
    VectorXd sizes(const Matrix& V1h, const Vector& Lambda, double floor) const {
        VectorXd scale(coordinates_.count());
        Index b = 0;
        for (const auto& [g, h] : coordinates_.pairs) {
            scale[b++] = std::max(std::sqrt(V1h(g, g) * V1h(h, h)), floor);
        }
        for (Index g = 0; g < groups(); ++g) scale[b++] = Lambda[g];
        return scale;
    }

    bool admissible(const VectorXd& x, double floor) const {
        if (!x.allFinite()) return false;
        MatrixXd A(groups(), groups());
        VectorXd diagonal(groups());
        coordinates_.split(x, A, diagonal);
        if (diagonal.minCoeff() < 0.0 || A.diagonal().minCoeff() < 0.0) return false;
        if (groups() == 1) return true;
        const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(A, Eigen::EigenvaluesOnly);
        return eigen.eigenvalues()[0] >= -1e-13 * eigen.eigenvalues()[groups() - 1] - floor;
    }

    // Sections 4.3, 6.1 and 6.2.
    void means() {
        k_ = bulk_.averages();
        M_ = k_.inverse.inverse();
        Kvv_ = s_.slope_variance * (M_ * k_.vv);
        Kvz_ = M_ * k_.vz;
        Kzz_ = k_.zz + k_.vz.transpose() * bulk_.V1h * Kvz_;

        const auto mu0 = rows(t_.mean), mu1 = rows(t_.linear), curvature = rows(t_.curvature);
        const auto kappa = column(t_.kappa), h = column(t_.target), h1 = column(t_.target_linear);
        const VectorXd w = weight_.cwiseProduct(damping_);
        Rows F = mu1 * kappa.asDiagonal();
        for (Index g = 0; g < groups(); ++g) {
            const double slope = s_.norm_slope[static_cast<std::size_t>(g)];
            if (slope != 0.0) F.row(g) += slope * curvature.row(g);
        }
        epsi_ = mu1 * w.cwiseProduct(h1);
        const Rows weighted = F * w.asDiagonal(), weighted0 = mu0 * w.asDiagonal();
        const MatrixXd FF = weighted * F.transpose(), F0 = weighted * mu0.transpose();
        const MatrixXd G = weighted0 * mu0.transpose();
        const VectorXd bF = weighted * h, b0 = weighted0 * h;
        // theta = offset - response m.
        const MatrixXd A = MatrixXd::Identity(groups(), groups()) + R_ * Kvv_ * FF;
        const Eigen::PartialPivLU<MatrixXd> lu(A);
        const VectorXd offset = lu.solve(R_ * (Kvv_ * bF + Kvz_ * epsi_));
        const MatrixXd response = lu.solve(R_ * Kvv_ * F0);
        MatrixXd system = G - F0.transpose() * response;
        for (Index g = 0; g < groups(); ++g) {
            system(g, g) += s_.inverse_width / (R_ * bulk_.V2[g]);
        }
        const VectorXd load = b0 - F0.transpose() * offset;
        const double size = w.dot(products_.colwise().sum().transpose()) + G.trace();
        m_ = shortest(system, load, size);
        theta_ = offset - response * m_;
        eth_ = bF - F0 * m_ - FF * theta_;
        psi_ = R_ * (Kvz_.transpose() * eth_ + Kzz_ * epsi_);
        output_ = mu0.transpose() * m_ + F.transpose() * theta_;
        across_ = mu1.transpose() * psi_;
    }

    // Section 4.4, with the rank-one part of section 6.1 (iii).
    void errors(Readout& out) {
        const auto h = column(t_.target), h1 = column(t_.target_linear);
        const auto second = column(t_.target_second);
        const Index count = coordinates_.count();
        const VectorXd base = second.array() - h.array().square() + s_.noise_var +
                              (output_ - h).array().square() - 2.0 * across_.array() * h1.array();
        const VectorXd w2 = weight_.cwiseProduct(damping_.cwiseAbs2());
        // Hats are load + H x in the coordinates x of (Q1, q2), and x = -D hats + rank.
        const Rows weighted = products_ * w2.asDiagonal();
        VectorXd load = R_ * (weighted * base), rank(count);
        MatrixXd H = R_ * (weighted * products_.transpose());
        for (Index b = 0; b < count; ++b) H.col(b) *= coordinates_.times(b);
        for (Index g = 0; g < groups(); ++g) {
            const double q = m_[g] / bulk_.V2[g];
            load[count - groups() + g] += s_.inverse_width * q * q;
        }
        MatrixXd D(count, count);
        for (Index b = 0; b < count; ++b) {
            Matrix dV1h = Matrix::Zero(groups(), groups());
            Vector dLambda = Vector::Zero(groups());
            coordinates_.split(VectorXd::Unit(count, b), dV1h, dLambda);
            const auto d = bulk_.along(dV1h, dLambda);
            D.col(b) = coordinates_.join(d.V1, d.V2);
            rank[b] = -R_ * R_ * energy_slope(d.k, dV1h) / coordinates_.times(b);
        }
        const MatrixXd A = MatrixXd::Identity(count, count) + D * H;
        const VectorXd x = A.partialPivLu().solve(rank - D * load);
        VectorXd doubled = x;
        for (Index b = 0; b < count; ++b) doubled[b] *= coordinates_.times(b);
        const VectorXd error = base + products_.transpose() * doubled;
        out.risk = weight_.dot(error) - s_.noise_var;
        out.train_risk = w2.dot(error);
        MatrixXd Q1(groups(), groups());
        VectorXd q2(groups());
        coordinates_.split(x, Q1, q2);
        out.Q1 = vector(Q1), out.q2 = vector(q2);
    }

    // Derivative of eth K_vv eth + 2 eth K_vz epsi + epsi K_zz epsi.
    double energy_slope(const typename B::Averages& d, const Matrix& dV1h) const {
        const Matrix& V1h = bulk_.V1h;
        const Matrix dM = M_ * (d.vv * V1h + k_.vv * dV1h) * M_;
        const Matrix dKvv = s_.slope_variance * (dM * k_.vv + M_ * d.vv);
        const Matrix dKvz = dM * k_.vz + M_ * d.vz;
        const Matrix dKzz =
            d.zz + d.vz.transpose() * V1h * Kvz_ + k_.vz.transpose() * (dV1h * Kvz_ + V1h * dKvz);
        return eth_.dot(dKvv * eth_) + 2.0 * eth_.dot(dKvz * epsi_) + epsi_.dot(dKzz * epsi_);
    }

    const Tables& t_;
    const Setting& s_;
    double R_;
    B bulk_;
    Coordinates coordinates_;
    VectorXd weight_;
    Rows products_;
    VectorXd damping_;  // 1/(1 + Vk)
    typename B::Averages k_;
    Matrix M_, Kvv_, Kvz_, Kzz_;
    VectorXd m_, theta_, psi_, epsi_, eth_;
    VectorXd output_, across_;  // c(kappa) and p1(kappa)
};

template <class F>
auto with_groups(Index groups, F f) {
    switch (groups) {
        case 1:
            return f(std::integral_constant<int, 1>{});
        case 2:
            return f(std::integral_constant<int, 2>{});
        default:
            return f(std::integral_constant<int, 0>{});
    }
}

}  // namespace

std::vector<double> Modes::variance_along() const {
    if (!known_along.empty()) return known_along;
    std::vector<double> out(static_cast<std::size_t>(groups()));
    for (std::size_t i = 0; i < covariance.size(); ++i) {
        const std::size_t j = i % weight.size();
        out[i / weight.size()] += (along[j] * covariance[i]).real();
    }
    return out;
}

Resolvent resolvent(const Modes& modes, const std::vector<double>& fraction, double beta,
                    const std::vector<double>& V1h, const std::vector<double>& Lambda,
                    std::vector<double> v) {
    const Index groups = static_cast<Index>(fraction.size());
    return with_groups(groups, [&](auto k) {
        using B = Bulk<decltype(k)::value>;
        B bulk(modes, fraction, beta);
        if (!v.empty()) bulk.v = Map<const VectorXd>(v.data(), groups);
        const typename B::Matrix A = Map<const Rows>(V1h.data(), groups, groups);
        const typename B::Vector L = Map<const VectorXd>(Lambda.data(), groups);
        Resolvent out;
        out.iterations = bulk.solve(A, L);
        out.v = vector(bulk.v), out.V1 = vector(bulk.V1), out.V2 = vector(bulk.V2);
        return out;
    });
}

Readout solve_square(const Tables& tables, const Modes& modes, const Setting& setting) {
    return with_groups(tables.groups(), [&](auto k) {
        return SquareLoss<decltype(k)::value>(tables, modes, setting).solve();
    });
}

}  // namespace overparam::giant_step
