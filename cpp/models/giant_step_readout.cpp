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

constexpr Index MAX_ITERATIONS = 500;
// Relative change of a fixed point that ends its iteration; that below which Newton's method takes
// over; and that which is good enough where rounding stops the progress for so many iterations.
constexpr double TOLERANCE = 1e-12, NEWTON = 1e-2, STALLED = 1e-9;
constexpr Index PATIENCE = 8;
constexpr std::size_t DEPTH = 5;  // of Anderson's acceleration
// Eigenvalues of the system for m below this fraction of the largest one count as zero.
constexpr double DEPENDENCE = 1e-10;
// Relative size of parts of functions that are nothing but rounding errors.
constexpr double NEGLIGIBLE = 1e-13;
// Variances Vk beyond this take a unit of their own, which is not smaller than the second number;
// ridges that are this much larger than the hats are as good as infinite.
constexpr double LARGE = 1e6, SMALLEST_UNIT = 0x1p-460, ENDLESS = 1e100;
// Where the mean of 1/(1 + Vk) is below the first number, the equation of the degrees of freedom
// replaces another one; its relative defect is below the second number at a solution.
// Newton's steps there reduce no hat by more than the third one.
constexpr double SINGULAR = 1e-3, FREEDOM = 1e-6, LARGEST_FALL = 0.75;

using Eigen::Map;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Symmetric matrices (R, R) and vectors (K) as one vector of coordinates: pairs a <= b, then g.
struct Coordinates {
    Coordinates(Index rank, Index groups) : groups(groups) {
        for (Index a = 0; a < rank; ++a) {
            for (Index b = a; b < rank; ++b) pairs.emplace_back(a, b);
        }
    }

    Index count() const { return static_cast<Index>(pairs.size()) + groups; }
    // A coordinate's multiplicity: off-diagonal entries stand for two.
    double times(Index i) const {
        if (i >= static_cast<Index>(pairs.size())) return 1.0;
        const auto [a, b] = pairs[static_cast<std::size_t>(i)];
        return a == b ? 1.0 : 2.0;
    }

    template <class Matrix, class Vector>
    VectorXd join(const Matrix& A, const Vector& x) const {
        VectorXd out(count());
        Index i = 0;
        for (const auto& [a, b] : pairs) out[i++] = A(a, b);
        for (Index g = 0; g < groups; ++g) out[i++] = x[g];
        return out;
    }

    template <class Matrix, class Vector>
    void split(const VectorXd& in, Matrix& A, Vector& x) const {
        Index i = 0;
        for (const auto& [a, b] : pairs) A(a, b) = A(b, a) = in[i++];
        for (Index g = 0; g < groups; ++g) x[g] = in[i++];
    }

    VectorXd doubled(VectorXd x) const {
        for (Index i = 0; i < x.size(); ++i) x[i] *= times(i);
        return x;
    }

    // Products (count, nodes) of functions U (R, nodes), and the residuals (K, nodes).
    template <class Functions, class Residuals>
    Rows products(const Functions& U, const Residuals& residuals) const {
        Rows out(count(), U.cols());
        Index i = 0;
        for (const auto& [a, b] : pairs) out.row(i++) = U.row(a).cwiseProduct(U.row(b));
        out.bottomRows(groups) = residuals;
        return out;
    }

    Index groups;
    std::vector<std::pair<Index, Index>> pairs;
};

// The resolvent of K groups at V1h = L H L^T and Lambda, with L of full rank R <= K: section 4.1.
// The template's K is 0 where it is only known at run time.
template <int K>
class Bulk {
  public:
    static constexpr int SIZE = K > 0 ? K : Eigen::Dynamic;
    static constexpr int RANK = K == 1 ? 1 : Eigen::Dynamic;
    using Matrix = Eigen::Matrix<double, RANK, RANK>;
    using Frame = Eigen::Matrix<double, SIZE, RANK>;
    using Vector = Eigen::Matrix<double, SIZE, 1>;

    Bulk(const Modes& modes, const std::vector<double>& fraction, double beta, const Frame& L)
        : modes_(modes),
          beta_(beta),
          L_(L),
          fraction_(Map<const VectorXd>(fraction.data(), static_cast<Index>(fraction.size()))),
          v(Vector::Zero(groups())),
          V2(v),
          Lambda(v),
          V1(Matrix::Zero(rank(), rank())),
          H(V1),
          N_(ComplexVector::Zero(groups())),
          y_(ComplexMatrix::Zero(rank(), rank())),
          Z_(y_),
          T_(y_),
          X_(ComplexSquare::Zero(groups(), groups())),
          slope_(Square::Zero(groups(), groups())) {}

    Index groups() const { return fraction_.size(); }
    Index rank() const { return L_.cols(); }

    // v, V1 (in the frame L) and V2, by Newton's method in log v from the last v, if any.
    Index solve(const Matrix& H_given, const Vector& Lambda_given) {
        H = H_given, Lambda = Lambda_given;
        Index iteration = 0;
        if (groups() == 1 && modes_.count() == 1) {
            const double c = modes_.covariance[0].real();
            v[0] = isotropic_resolvent(Lambda[0], c * L_(0, 0) * L_(0, 0) * H(0, 0), beta_);
        } else {
            if (!(v.minCoeff() > 0.0)) v = Lambda.cwiseInverse();
            Vector S(Vector::Zero(groups())), f(S);
            for (; iteration < 200; ++iteration) {
                differentiate(S);
                const Vector total = Lambda + S;
                Square J = Square::Identity(groups(), groups());
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
            V1 += (modes_.weight[at(j)] * T_).real();
        }
        V1 /= beta_;
        V2 = fraction_.cwiseProduct(v);
        return iteration;
    }

    // Direction averages of section 6.1 in the frame: k_vv, k_vz, k_zz and 1 - k_vv H.
    struct Averages {
        Matrix vv, vz, zz, inverse;
    };

    Averages averages() {
        const Matrix zero = Matrix::Zero(rank(), rank());
        Averages k{zero, zero, zero, zero};
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            k.vv += (modes_.along[at(j)] * T_).real();
            k.vz += (modes_.across[at(j)] * T_).real();
            k.zz += (modes_.orthogonal[at(j)] * T_).real();
            k.inverse += (modes_.along[at(j)] * y_.transpose()).real();
        }
        return k;
    }

    // Derivatives of V1, V2 and the averages along (dH, dLambda).
    struct Derivative {
        Matrix V1;
        Vector V2;
        Averages k;
    };

    Derivative along(const Matrix& dH, const Vector& dLambda) {
        const Matrix zero = Matrix::Zero(rank(), rank());
        Derivative d{zero, Vector::Zero(groups()), {zero, zero, zero, zero}};
        Vector load = dLambda, S(Vector::Zero(groups()));
        differentiate(S);
        Square J = Square::Identity(groups(), groups());
        for (Index g = 0; g < groups(); ++g) J.row(g) -= v[g] * v[g] * slope_.row(g);
        if (groups() == 1 && modes_.count() == 1) {
            // The same without cancellation, as c v X = 1 - Lambda v.
            const double q = Lambda[0] * v[0];
            J(0, 0) = (1.0 - beta_) + beta_ * q * (2.0 - q);
        }
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            const ComplexMatrix dZ = y_ * dH * y_.transpose();
            const ComplexFrame LdZ = L_ * dZ;
            for (Index g = 0; g < groups(); ++g) {
                const Complex dX =
                    LdZ.row(g).cwiseProduct(L_.row(g).template cast<Complex>()).sum();
                load[g] += (modes_.weight[at(j)] * covariance(g, j) * dX).real();
            }
        }
        const Vector dv = J.partialPivLu().solve(-v.cwiseAbs2().cwiseProduct(load));
        d.V2 = fraction_.cwiseProduct(dv);
        ComplexVector dN(N_);
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            for (Index g = 0; g < groups(); ++g) {
                dN[g] = beta_ * fraction_[g] * covariance(g, j) * dv[g];
            }
            const ComplexMatrix dP = L_.transpose() * dN.asDiagonal() * L_;
            const ComplexMatrix dT = y_.transpose() * dP * y_ - T_ * dH * T_;
            d.V1 += (modes_.weight[at(j)] * dT).real();
            d.k.vv += (modes_.along[at(j)] * dT).real();
            d.k.vz += (modes_.across[at(j)] * dT).real();
            d.k.zz += (modes_.orthogonal[at(j)] * dT).real();
        }
        d.V1 /= beta_;
        return d;
    }

  private:
    using Square = Eigen::Matrix<double, SIZE, SIZE>;
    using ComplexSquare = Eigen::Matrix<Complex, SIZE, SIZE>;
    using ComplexMatrix = Eigen::Matrix<Complex, RANK, RANK>;
    using ComplexFrame = Eigen::Matrix<Complex, SIZE, RANK>;
    using ComplexVector = Eigen::Matrix<Complex, SIZE, 1>;

    static std::size_t at(Index j) { return static_cast<std::size_t>(j); }

    Complex covariance(Index g, Index j) const {
        return modes_.covariance[at(g * modes_.count() + j)];
    }

    // N of one mode and, with P = L^T N L, y = (1 + H P)^-1, Z = y H and T = P y.
    void mode(Index j) {
        for (Index g = 0; g < groups(); ++g) N_[g] = beta_ * fraction_[g] * v[g] * covariance(g, j);
        if constexpr (K == 1) {
            const Complex P = L_(0, 0) * L_(0, 0) * N_[0];
            y_(0, 0) = 1.0 / (1.0 + H(0, 0) * P);
            Z_(0, 0) = y_(0, 0) * H(0, 0), T_(0, 0) = P * y_(0, 0);
        } else {
            const ComplexMatrix P = L_.transpose() * N_.asDiagonal() * L_;
            const ComplexMatrix A = ComplexMatrix::Identity(rank(), rank()) + H * P;
            y_ = A.partialPivLu().inverse();
            Z_ = y_ * H, T_ = P * y_;
        }
    }

    // S_g = sum_j rho Sigma_g X_gg and slope_gh = -dS_g/dv_h, with X = L Z L^T.
    void differentiate(Vector& S) {
        S.setZero();
        slope_.setZero();
        for (Index j = 0; j < modes_.count(); ++j) {
            mode(j);
            X_ = L_ * Z_ * L_.transpose();
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

    const Modes& modes_;
    double beta_;
    Frame L_;
    Vector fraction_;

  public:
    Vector v, V2, Lambda;
    Matrix V1, H;

  private:
    ComplexVector N_;
    ComplexMatrix y_, Z_, T_;
    ComplexSquare X_;
    Square slope_;
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

// Solution x of a symmetric system for y = norm x, with the shortest x where it is singular.
VectorXd shortest(const MatrixXd& A, const VectorXd& b, const VectorXd& norm) {
    const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(0.5 * (A + A.transpose()));
    const VectorXd& values = eigen.eigenvalues();
    const double limit = DEPENDENCE * values.cwiseAbs().maxCoeff();
    VectorXd y = eigen.eigenvectors().transpose() * b;
    std::vector<Index> dropped;
    for (Index i = 0; i < y.size(); ++i) {
        if (std::abs(values[i]) > limit) {
            y[i] /= values[i];
        } else {
            y[i] = 0.0;
            dropped.push_back(i);
        }
    }
    const VectorXd x = (eigen.eigenvectors() * y).cwiseQuotient(norm);
    if (dropped.empty()) return x;
    // What adds nothing to the system, in units in which norms are not tiny.
    const double unit = norm.minCoeff();
    const MatrixXd free =
        (norm / unit).cwiseInverse().asDiagonal() * eigen.eigenvectors()(Eigen::all, dropped);
    return x - free * free.completeOrthogonalDecomposition().solve(x);
}

std::vector<double> vector(const MatrixXd& x) {
    const Rows rows = x;
    return {rows.data(), rows.data() + rows.size()};
}

// The quadratic form of sections 4.3 and 6.1 in a frame: K_vv, K_vz, K_zz.
template <int K>
struct Energy {
    using Matrix = typename Bulk<K>::Matrix;

    Energy(Bulk<K>& bulk, double slope_variance)
        : H(bulk.H), factor(slope_variance), k(bulk.averages()), M(k.inverse.inverse()) {
        vv = factor * (M * k.vv);
        vz = M * k.vz;
        zz = k.zz + k.vz.transpose() * H * vz;
    }

    // Derivative of eth K_vv eth + 2 eth K_vz epsi + epsi K_zz epsi.
    double slope(const typename Bulk<K>::Averages& d, const Matrix& dH, const VectorXd& eth,
                 const VectorXd& epsi) const {
        const Matrix dM = M * (d.vv * H + k.vv * dH) * M;
        const Matrix dvv = factor * (dM * k.vv + M * d.vv), dvz = dM * k.vz + M * d.vz;
        const Matrix dzz =
            d.zz + d.vz.transpose() * H * vz + k.vz.transpose() * (dH * vz + H * dvz);
        return eth.dot(dvv * eth) + 2.0 * eth.dot(dvz * epsi) + epsi.dot(dzz * epsi);
    }

    Matrix H;
    double factor;
    typename Bulk<K>::Averages k;
    Matrix M, vv, vz, zz;
};

template <int K>
class SquareLoss {
  public:
    using B = Bulk<K>;
    using Matrix = typename B::Matrix;
    using Frame = typename B::Frame;
    using Vector = typename B::Vector;

    SquareLoss(const Tables& tables, const Modes& modes, const Setting& setting)
        : t_(tables),
          s_(setting),
          modes_(modes),
          R_(setting.alpha / setting.beta),
          weight_(column(t_.weight)),
          reduced_(reduce()),
          bulk_(modes, setting.fraction, setting.beta, L_),
          coordinates_(L_.cols(), groups()),
          products_(coordinates_.products(U_, rows(t_.residual))),
          start_(R_ * (products_ * weight_)),
          ridge_(std::min(setting.ridge, ENDLESS * std::max(1.0, start_.maxCoeff()))),
          unit_(unit()),
          damping_(VectorXd::Ones(nodes())) {}

    Readout solve() {
        Readout out{};
        variances(out);
        const Energy<K> energy(bulk_, s_.slope_variance);
        means(energy, out);
        errors(energy, out);
        if (reduced_) {
            restore(out);
        } else {
            out.V1 = vector(bulk_.V1);
        }
        out.V2 = vector(bulk_.V2);
        scale(out);
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

    // mu1 = L U with orthonormal functions U, as many as there are independent ones: V1 is large,
    // like the inverse ridge, for combinations of the groups whose functions cancel. The norm term
    // has functions of its own for each group, so that with it, as for one group, U = mu1.
    bool reduce() {
        const auto mu1 = rows(t_.linear);
        const bool norm = std::any_of(s_.norm_slope.begin(), s_.norm_slope.end(),
                                      [](double slope) { return slope != 0.0; });
        if (groups() == 1 || norm) {
            U_ = mu1;
            L_ = Frame::Identity(groups(), groups());
            return false;
        }
        const VectorXd root = weight_.cwiseSqrt();
        const MatrixXd weighted = (mu1 * root.asDiagonal()).transpose();
        const Eigen::ColPivHouseholderQR<MatrixXd> qr(weighted);
        const auto diagonal = qr.matrixQR().diagonal().cwiseAbs();
        Index rank = 1;
        while (rank < groups() && diagonal[rank] > NEGLIGIBLE * diagonal[0]) ++rank;
        const MatrixXd Q = qr.householderQ() * MatrixXd::Identity(nodes(), rank);
        U_ = Q.transpose() * root.cwiseInverse().asDiagonal();
        const MatrixXd triangle =
            qr.matrixQR().topRows(rank).template triangularView<Eigen::Upper>();
        const MatrixXd frame = qr.colsPermutation() * triangle.transpose();
        L_ = frame;
        return true;
    }

    // Variances V are computed in this unit's inverse, hats and ridge in the unit itself, so that
    // all numbers keep a moderate size when the ridge vanishes; from an estimate of Vk, which
    // solves ridge V2 = 1 - R + R/(1 + Vk).
    double unit() const {
        const double size = start_.tail(groups()).sum() / R_;
        if (!(size > 0.0)) return 1.0;
        const double a = ridge_ / size, b = a + (s_.alpha - s_.beta) / s_.beta;
        const double root = std::sqrt(b * b + 4.0 * a);
        const double Vk = b > 0.0 ? 2.0 / (b + root) : (root - b) / (2.0 * a);
        if (!(Vk > LARGE)) return 1.0;
        return std::max(std::exp2(-std::floor(std::log2(Vk))), SMALLEST_UNIT);
    }

    // Results in units of one; those of an endless ridge, by which it is larger than ours.
    void scale(Readout& out) const {
        const double part = ridge_ / s_.ridge;
        for (auto* x : {&out.theta, &out.psi, &out.V1, &out.V2}) {
            for (double& value : *x) value *= part;
        }
        for (auto* x : {&out.Q1, &out.q2}) {
            for (double& value : *x) value *= part * part;
        }
        for (auto* x : {&out.V1, &out.V2}) {
            for (double& value : *x) value /= unit_;
        }
    }

    // Vk at all nodes.
    VectorXd variance() const {
        return products_.transpose() * coordinates_.doubled(coordinates_.join(bulk_.V1, bulk_.V2));
    }

    // Solves for the bulk at (H, V2h), and returns their images.
    VectorXd image(const VectorXd& x) {
        Matrix H = Matrix::Zero(L_.cols(), L_.cols());
        Vector V2h = Vector::Zero(groups());
        coordinates_.split(x, H, V2h);
        const Vector Lambda = V2h.array() + ridge_ / unit_;
        bulk_.solve(H, Lambda);
        damping_ = (unit_ + variance().array()).inverse();
        return R_ * (products_ * weight_.cwiseProduct(damping_));
    }

    // Mean of 1/(1 + Vk).
    double freedom() const { return unit_ * weight_.dot(damping_); }

    // The equation ridge V2 = 1 - R + R E[1/(1 + Vk)] is the combination of those of the hats with
    // the coefficients (V1, V2), but without the terms that cancel, which are all that is left of
    // it to double precision where the ridge vanishes at alpha = beta.
    struct Freedom {
        double defect, size;
    };

    Freedom defect() const {
        const double excess = (s_.alpha - s_.beta) / s_.beta, rest = R_ * freedom();
        const double penalty = ridge_ / unit_ * bulk_.V2.sum();
        return {excess - rest + penalty, std::max({std::abs(excess), rest, penalty})};
    }

    // The equation with the largest part in this combination.
    Index dependent(const VectorXd& x) const {
        const VectorXd V = coordinates_.join(bulk_.V1, bulk_.V2);
        Index out = 0;
        coordinates_.doubled(V.cwiseProduct(x)).cwiseAbs().maxCoeff(&out);
        return out;
    }

    // Solution of A y = b for unknowns of these sizes.
    static VectorXd balanced(const MatrixXd& A, const VectorXd& b, const VectorXd& scale) {
        const MatrixXd even = scale.cwiseInverse().asDiagonal() * A * scale.asDiagonal();
        return scale.cwiseProduct(even.partialPivLu().solve(b.cwiseQuotient(scale)));
    }

    // The same with the equation `row` replaced.
    static VectorXd replaced(MatrixXd A, VectorXd b, const VectorXd& scale, Index row,
                             const VectorXd& coefficients, double value) {
        const double size = coefficients.cwiseProduct(scale).cwiseAbs().maxCoeff() / scale[row];
        A.row(row) = coefficients / size;
        b[row] = value / size;
        return balanced(A, b, scale);
    }

    VectorXd newton(const VectorXd& x, const VectorXd& change, const VectorXd& scale) {
        const MatrixXd D = responses(bulk_, coordinates_), H = squares();
        const MatrixXd A = MatrixXd::Identity(x.size(), x.size()) + H * D;
        if (freedom() > SINGULAR) return A.partialPivLu().solve(change);
        VectorXd slope = D.bottomRows(groups()).colwise().sum().transpose() * (ridge_ / unit_);
        slope += D.transpose() * coordinates_.doubled(falling());
        const VectorXd step = replaced(A, change, scale, dependent(x), slope, -defect().defect);
        // The scale of all hats may be far off.
        const double fall = -step.cwiseQuotient(scale).minCoeff();
        return fall > LARGEST_FALL ? LARGEST_FALL / fall * step : step;
    }

    // R E[products/(1 + Vk)^2] with one factor in units of one.
    VectorXd falling() const {
        return R_ * unit_ * (products_ * weight_.cwiseProduct(damping_.cwiseAbs2()));
    }

    // Section 4.2: the fixed point of (H, V2h). Leaves 1/(1 + Vk) and the bulk at the solution.
    void variances(Readout& out) {
        VectorXd x = start_;
        const double floor = std::numeric_limits<double>::min();
        Anderson anderson;
        double last = std::numeric_limits<double>::infinity(), best = last;
        Index stalled = 0;
        out.status = Status::NOT_CONVERGED;
        for (out.iterations = 1; out.iterations <= MAX_ITERATIONS; ++out.iterations) {
            const VectorXd images = image(x), scale = sizes(bulk_.H, bulk_.Lambda, floor);
            const double plain = (images - x).cwiseQuotient(scale).cwiseAbs().maxCoeff();
            double change = plain;
            if (freedom() <= SINGULAR) {
                const Freedom f = defect();
                change = std::max(change, std::abs(f.defect) / f.size);
            }
            out.residual = change;
            if (!std::isfinite(change)) {
                out.status = Status::DIVERGED;
                break;
            }
            stalled = change < 0.5 * best ? 0 : stalled + 1;
            best = std::min(best, change);
            const bool end = change <= TOLERANCE || (change <= STALLED && stalled >= PATIENCE);
            VectorXd next = images;
            if (end || (plain < NEWTON && stalled < PATIENCE)) {
                next = x + newton(x, images - x, scale);
            } else {
                if (change > 1e3 * last) anderson.reset();
                next = anderson.next(x, images, scale);
            }
            last = change;
            if (!admissible(next, floor)) {
                anderson.reset();
                next = images;
            }
            x = next;
            if (end) {
                image(x);
                out.status = Status::SUCCESS;
                break;
            }
        }
        const double trace = bulk_.H.cwiseProduct(bulk_.V1).sum();
        out.identity = std::abs(trace + bulk_.Lambda.dot(bulk_.V2) - 1.0);
        const Freedom f = defect();
        if (out.status == Status::SUCCESS && !(std::abs(f.defect) <= FREEDOM * f.size)) {
            out.status = Status::NOT_CONVERGED;
        }
    }

    // Sizes of the coordinates (A, x), which changes are compared with.
    VectorXd sizes(const Matrix& A, const Vector& x, double floor) const {
        VectorXd scale(coordinates_.count());
        Index i = 0;
        for (const auto& [a, b] : coordinates_.pairs) {
            scale[i++] = std::max(std::sqrt(A(a, a)) * std::sqrt(A(b, b)), floor);
        }
        scale.tail(groups()) = x;
        return scale;
    }

    bool admissible(const VectorXd& x, double floor) const {
        if (!x.allFinite()) return false;
        MatrixXd A(L_.cols(), L_.cols());
        VectorXd V2h(groups());
        coordinates_.split(x, A, V2h);
        if (V2h.minCoeff() < 0.0 || A.diagonal().minCoeff() < 0.0) return false;
        if (A.rows() == 1) return true;
        const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(A, Eigen::EigenvaluesOnly);
        return eigen.eigenvalues()[0] >= -NEGLIGIBLE * eigen.eigenvalues()[A.rows() - 1] - floor;
    }

    // Derivatives D of (V1, V2) by (H, Lambda), in coordinates; with the form `energy` of eth and
    // epsi also the rank-one part of section 6.1 (iii).
    MatrixXd responses(B& bulk, const Coordinates& coordinates, const Energy<K>* energy = nullptr,
                       VectorXd* rank = nullptr, const VectorXd& eth = {},
                       const VectorXd& epsi = {}) {
        const Index count = coordinates.count();
        MatrixXd D(count, count);
        for (Index b = 0; b < count; ++b) {
            Matrix dH = Matrix::Zero(bulk.rank(), bulk.rank());
            Vector dLambda = Vector::Zero(groups());
            coordinates.split(VectorXd::Unit(count, b), dH, dLambda);
            const auto d = bulk.along(dH, dLambda);
            D.col(b) = coordinates.join(d.V1, d.V2);
            if (energy != nullptr) {
                (*rank)[b] = -R_ * R_ * energy->slope(d.k, dH, eth, epsi) / coordinates.times(b);
            }
        }
        return D;
    }

    // R E[products products^T/(1 + Vk)^2], for coordinates on the right.
    MatrixXd squares() const {
        const VectorXd w2 = weight_.cwiseProduct(damping_.cwiseAbs2());
        MatrixXd out = R_ * ((products_ * w2.asDiagonal()) * products_.transpose());
        for (Index b = 0; b < out.cols(); ++b) out.col(b) *= coordinates_.times(b);
        return out;
    }

    // Sections 4.3 and 6.2.
    void means(const Energy<K>& energy, Readout& out) {
        const auto curvature = rows(t_.curvature);
        const auto kappa = column(t_.kappa), h = column(t_.target), h1 = column(t_.target_linear);
        const VectorXd w = weight_.cwiseProduct(damping_);
        Rows F = U_ * kappa.asDiagonal();
        if (!reduced_) {
            for (Index g = 0; g < groups(); ++g) {
                F.row(g) += s_.norm_slope[static_cast<std::size_t>(g)] * curvature.row(g);
            }
        }
        // Without a penalty of their own the means' norms play no part, however small they are.
        Rows mu0 = rows(t_.mean);
        VectorXd norm = VectorXd::Ones(groups());
        for (Index g = 0; g < groups(); ++g) {
            const double largest = mu0.row(g).cwiseAbs().maxCoeff();
            if (s_.inverse_width > 0.0 || !(largest > 0.0)) continue;
            mu0.row(g) /= largest;
            norm[g] = std::sqrt(weight_.dot(mu0.row(g).cwiseAbs2().transpose()));
            mu0.row(g) /= norm[g];
            norm[g] *= largest;
        }
        epsi_ = U_ * w.cwiseProduct(h1);
        const Rows weighted = F * w.asDiagonal(), weighted0 = mu0 * w.asDiagonal();
        const MatrixXd FF = weighted * F.transpose(), F0 = weighted * mu0.transpose();
        const MatrixXd G = weighted0 * mu0.transpose();
        const VectorXd bF = weighted * h, b0 = weighted0 * h;
        VectorXd free, theta;
        if (FF.rows() == 1 && FF(0, 0) > 0.0) {
            // Means are m (mu0 - P F) + (theta + P m) F, whose parts are orthogonal: nothing
            // cancels where mu0 - P F vanishes, or theta costs nothing.
            const VectorXd P = F0.row(0).transpose() / FF(0, 0);
            Rows apart = mu0 - P * F;
            for (Index g = 0; g < groups(); ++g) {
                const double left = apart.row(g).cwiseAbs().maxCoeff();
                if (left < NEGLIGIBLE * mu0.row(g).cwiseAbs().maxCoeff()) apart.row(g).setZero();
            }
            const double shift = R_ * energy.vz.row(0).dot(epsi_);
            const double E = 1.0 / (R_ * energy.vv(0, 0) + 1.0 / FF(0, 0));
            const double aim = bF[0] / FF(0, 0) - shift;
            const Rows weighted_apart = apart * w.asDiagonal();
            MatrixXd system = weighted_apart * apart.transpose() + E * P * P.transpose();
            penalise(system);
            m_ = shortest(system, weighted_apart * h + E * aim * P, norm);
            free = norm.cwiseProduct(m_);
            eth_ = VectorXd::Constant(1, E * (aim - P.dot(free)));
            theta = R_ * energy.vv(0, 0) * eth_ + VectorXd::Constant(1, shift);
        } else {
            // theta = offset - response m.
            const MatrixXd A = MatrixXd::Identity(FF.rows(), FF.cols()) + R_ * energy.vv * FF;
            const Eigen::PartialPivLU<MatrixXd> lu(A);
            const VectorXd offset = lu.solve(R_ * (energy.vv * bF + energy.vz * epsi_));
            const MatrixXd response = lu.solve(R_ * energy.vv * F0);
            MatrixXd system = G - F0.transpose() * response;
            penalise(system);
            m_ = shortest(system, b0 - F0.transpose() * offset, norm);
            free = norm.cwiseProduct(m_);
            theta = offset - response * free;
            eth_ = bF - F0 * free - FF * theta;
        }
        const VectorXd psi = R_ * (energy.vz.transpose() * eth_ + energy.zz * epsi_);
        output_ = mu0.transpose() * free + F.transpose() * theta;
        across_ = U_.transpose() * psi;
        out.m = vector(m_), out.theta = vector(theta), out.psi = vector(psi);
    }

    // Adds the penalty of m at finite width.
    void penalise(MatrixXd& system) const {
        for (Index g = 0; g < groups(); ++g) {
            system(g, g) += s_.inverse_width / (R_ * bulk_.V2[g]);
        }
    }

    // Section 4.4, with the rank-one part of section 6.1 (iii).
    void errors(const Energy<K>& energy, Readout& out) {
        const auto h = column(t_.target), h1 = column(t_.target_linear);
        const auto second = column(t_.target_second);
        const Index count = coordinates_.count();
        const VectorXd base = second.array() - h.array().square() + s_.noise_var +
                              (output_ - h).array().square() - 2.0 * across_.array() * h1.array();
        const VectorXd w2 = weight_.cwiseProduct(damping_.cwiseAbs2());
        // Hats are load + H x in the coordinates x of (Q1, q2), and x = -D hats + rank.
        VectorXd rank(count);
        const MatrixXd D = responses(bulk_, coordinates_, &energy, &rank, eth_, epsi_);
        const VectorXd load = R_ * (products_ * w2.cwiseProduct(base)) + finite_width();
        const MatrixXd A = MatrixXd::Identity(count, count) + D * squares();
        const VectorXd b = rank - D * load;
        const VectorXd size = sizes(bulk_.V1, bulk_.V2, std::numeric_limits<double>::min());
        VectorXd x;
        if (freedom() > SINGULAR) {
            x = balanced(A, b, size);
        } else {
            // The combination with the hats as coefficients, without the terms that cancel.
            const VectorXd hats = R_ * (products_ * weight_.cwiseProduct(damping_));
            const VectorXd ones = coordinates_.join(Matrix::Zero(L_.cols(), L_.cols()).eval(),
                                                    Vector::Ones(groups()).eval());
            const VectorXd penalty = coordinates_.doubled(D * ones) * (ridge_ / unit_);
            const VectorXd left = coordinates_.doubled(falling()) - squares().transpose() * penalty;
            x = replaced(A, b, size, dependent(hats), left, coordinates_.doubled(hats).dot(b));
        }
        error_ = base + products_.transpose() * coordinates_.doubled(x);
        out.risk = weight_.dot(error_) - s_.noise_var;
        out.train_risk = unit_ * unit_ * w2.dot(error_);
        MatrixXd Q1(L_.cols(), L_.cols());
        VectorXd q2(groups());
        coordinates_.split(x, Q1, q2);
        out.Q1 = vector(Q1), out.q2 = vector(q2);
        // Errors that are not positive beyond rounding are those of a singular system.
        const double slack = -STALLED * (weight_.dot(second) + s_.noise_var);
        const bool finite = std::isfinite(out.risk) && std::isfinite(out.train_risk);
        if (!finite || out.risk < slack || out.train_risk < slack || q2.minCoeff() < slack) {
            if (out.status == Status::SUCCESS) out.status = Status::NOT_CONVERGED;
        } else {
            out.risk = std::max(out.risk, 0.0), out.train_risk = std::max(out.train_risk, 0.0);
        }
    }

    // What a finite width adds to the hats of q2.
    VectorXd finite_width() const {
        VectorXd out = VectorXd::Zero(coordinates_.count());
        if (s_.inverse_width == 0.0) return out;
        out.tail(groups()) = s_.inverse_width * m_.cwiseQuotient(VectorXd(bulk_.V2)).cwiseAbs2();
        return out;
    }

    // theta, psi, V1 and Q1 of the groups, from those in the frame.
    void restore(Readout& out) {
        const Index K_ = groups();
        B bulk(modes_, s_.fraction, s_.beta, Frame::Identity(K_, K_));
        bulk.v = bulk_.v;
        bulk.solve(L_ * bulk_.H * L_.transpose(), bulk_.Lambda);
        const Energy<K> energy(bulk, s_.slope_variance);
        const VectorXd eth = L_ * eth_, epsi = L_ * epsi_;
        out.theta = vector(R_ * (energy.vv * eth + energy.vz * epsi));
        out.psi = vector(R_ * (energy.vz.transpose() * eth + energy.zz * epsi));
        out.V1 = vector(bulk.V1);
        const Coordinates coordinates(K_, K_);
        const Rows products = coordinates.products(rows(t_.linear), rows(t_.residual));
        const VectorXd w2 = weight_.cwiseProduct(damping_.cwiseAbs2());
        VectorXd hats = R_ * (products * w2.cwiseProduct(error_)), rank(coordinates.count());
        hats.tail(K_) += finite_width().tail(K_);
        const MatrixXd D = responses(bulk, coordinates, &energy, &rank, eth, epsi);
        MatrixXd Q1(K_, K_);
        VectorXd q2(K_);
        coordinates.split(rank - D * hats, Q1, q2);
        out.Q1 = vector(Q1);
    }

    const Tables& t_;
    const Setting& s_;
    const Modes& modes_;
    double R_;
    VectorXd weight_;
    Rows U_;
    Frame L_;
    bool reduced_;
    B bulk_;
    Coordinates coordinates_;
    Rows products_;
    VectorXd start_;  // the hats at Vk = 0
    double ridge_, unit_;
    VectorXd damping_;  // 1/(1 + Vk), in the inverse unit
    VectorXd m_, epsi_, eth_;
    VectorXd output_, across_, error_;  // c(kappa), p1(kappa) and the mean squared error
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

double isotropic_resolvent(double Lambda, double a, double beta) {
    const double b = beta * a, p = Lambda + (a - b);
    const double q = std::sqrt(p * p + 4.0 * Lambda * b);
    return p > 0.0 ? 2.0 / (p + q) : (q - p) / (2.0 * Lambda * b);
}

Resolvent resolvent(const Modes& modes, const std::vector<double>& fraction, double beta,
                    const std::vector<double>& V1h, const std::vector<double>& Lambda,
                    std::vector<double> v) {
    const Index groups = static_cast<Index>(fraction.size());
    return with_groups(groups, [&](auto k) {
        using B = Bulk<decltype(k)::value>;
        B bulk(modes, fraction, beta, B::Frame::Identity(groups, groups));
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
