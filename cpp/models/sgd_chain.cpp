#include <algorithm>
#include <cmath>
#include <limits>

#include "base/dispatch.hpp"
#include "base/rng.hpp"
#include "base/threads.hpp"
#include "models/sgd.hpp"

// The inputs are seen in an orthonormal frame whose first ps vectors span the teacher's rows and
// whose first ps + p vectors span all rows: x = (xi*, xi, rest), where only |rest|^2 (chi-square)
// matters. In it, w*/sqrt N = (Lstar, 0, 0) and w/sqrt N = (Bm, L, 0) with L L^T = Qperp, any
// square root.

namespace overparam::sgd {

namespace {

using rng::Key;

// Rows i >= j of a lower triangle, packed by rows.
constexpr Index tri(Index i, Index j) { return i * (i + 1) / 2 + j; }

// A square root of a packed symmetric matrix, per lane: A = L D L^T with a unit lower triangle L
// (its strict part, packed) and the roots of D. A pivot at rounding level gives a zero column.
inline void square_root(const Lanes* A, Lanes* L, Lanes* roots, Lanes* scaled, Index p) {
    Lanes largest = A[0];
    for (Index j = 1; j < p; ++j) largest = maximum(largest, A[tri(j, j)]);
    const Lanes floor = largest * 1e-15;
    for (Index j = 0; j < p; ++j) {
        Lanes d = A[tri(j, j)];
        for (Index k = 0; k < j; ++k) d -= scaled[tri(j, k)] * L[tri(j, k)];
        const Mask good = d > floor;
        const Lanes inverse = select(good, 1.0 / d, lanes(0.0));
        roots[j] = sqrt(select(good, d, lanes(0.0)));
        for (Index i = j + 1; i < p; ++i) {
            Lanes s = A[tri(i, j)];  // row i of L D
            for (Index k = 0; k < j; ++k) s -= scaled[tri(i, k)] * L[tri(j, k)];
            scaled[tri(i, j)] = s;
            L[tri(i, j)] = s * inverse;
        }
    }
}

inline Lanes value(Activation g, const Lanes& u) {
    if (g == Activation::QUADRATIC) return u * u;
    if (g == Activation::RELU) return maximum(u, lanes(0.0));
    Lanes r = u;
    for (int i = 0; i < LANES; ++i) r.set(i, activate(g, u[i]));
    return r;
}

inline Lanes slope(Activation g, const Lanes& u) {
    if (g == Activation::QUADRATIC) return 2.0 * u;
    if (g == Activation::RELU) return select(u > lanes(0.0), lanes(1.0), lanes(0.0));
    Lanes r = u;
    for (int i = 0; i < LANES; ++i) r.set(i, activate_slope(g, u[i]));
    return r;
}

// Eight replicas. WIDTH_P is the student width, or 0 when it is known only at run time.
template <int WIDTH_P>
class LaneGroup {
  public:
    LaneGroup(const Model& model, double dim, const double* Lstar, const double* norms,
              std::uint64_t seed)
        : m_(model),
          p_(WIDTH_P ? WIDTH_P : model.p),
          ps_(model.ps),
          dim_(dim),
          Lstar_(Lstar),
          norms_(norms),
          fields_(rng::stream_key(seed, rng::Purpose::FIELDS)),
          norm_(rng::stream_key(seed, rng::Purpose::NORM)),
          B_(p_ * ps_),
          Q_(tri(p_, 0)),
          L_(tri(p_, 0)),
          LD_(tri(p_, 0)),
          roots_(p_),
          a_(p_),
          kept_(p_),
          z_(ps_ + p_ + 3),
          w_(p_),
          scaled_(p_),
          lambda_(p_),
          c_(p_),
          da_(p_) {
        if (m_.batch > 1) {
            K_.resize(tri(p_, 0));
            T_.resize(p_ * p_);
            t_.resize(p_ * p_);
            Y_.resize(p_ * p_);
            dB_.resize(p_ * ps_);
        }
    }

    void run(ChainState state, Index first, Index replicas, std::uint64_t step, Index steps) {
        const Index count = std::min<Index>(LANES, replicas - first);
        gather(state, first, count);
        replica_ = rng::lane_numbers() + static_cast<std::uint64_t>(first);
        for (Index s = 0; s < steps; ++s) {
            const std::uint64_t now = step + static_cast<std::uint64_t>(s);
            if (m_.batch == 1) {
                single(now);
            } else {
                mini_batch(now);
            }
        }
        scatter(state, first, count);
    }

  private:
    // Lanes beyond `count` repeat the first replica; their results are dropped.
    void gather(ChainState s, Index first, Index count) {
        for (int l = 0; l < LANES; ++l) {
            const Index r = first + (l < count ? l : 0);
            for (Index i = 0; i < p_ * ps_; ++i) B_[i].set(l, s.Bm[r * p_ * ps_ + i]);
            for (Index i = 0; i < p_; ++i) {
                for (Index j = 0; j <= i; ++j) Q_[tri(i, j)].set(l, s.Qperp[(r * p_ + i) * p_ + j]);
                a_[i].set(l, s.a[r * p_ + i]);
                kept_[i].set(l, norms_[r * p_ + i]);
            }
        }
    }

    void scatter(ChainState s, Index first, Index count) {
        for (int l = 0; l < count; ++l) {
            const Index r = first + l;
            for (Index i = 0; i < p_ * ps_; ++i) s.Bm[r * p_ * ps_ + i] = B_[i][l];
            for (Index i = 0; i < p_; ++i) {
                for (Index j = 0; j <= i; ++j) {
                    s.Qperp[(r * p_ + i) * p_ + j] = s.Qperp[(r * p_ + j) * p_ + i] =
                        Q_[tri(i, j)][l];
                }
                s.a[r * p_ + i] = a_[i][l];
            }
        }
    }

    // Fields of one input: z = (xi*, xi), then a normal for the chi-square and one for the label
    // noise; w = L xi, lambda, and c = (lr/dim) e a g'(lambda) per unit batch. Adds
    // (second_layer_lr/dim) e g(lambda) to da_.
    void sample(std::uint64_t step, Index member) {
        const Index n = ps_ + p_;
        const std::uint64_t pairs = static_cast<std::uint64_t>((n + 3) / 2);
        const Index needed = n + (m_.noise_var > 0.0 ? 2 : 1);
        for (Index k = 0; 2 * k < needed; ++k) {
            const rng::Block block = rng::draw(
                fields_,
                words(static_cast<std::uint64_t>(member) * pairs + static_cast<std::uint64_t>(k)),
                step, replica_);
            rng::normals(block, z_[2 * k], z_[2 * k + 1]);
            if (n / 2 == k) spare_ = block;
        }
        const Lanes *xs = z_.data(), *x = z_.data() + ps_;
        Lanes e = lanes(m_.offset);
        for (Index r = 0; r < ps_; ++r) {
            Lanes u = lanes(0.0);
            for (Index s = 0; s < ps_; ++s) u += Lstar_[r * ps_ + s] * xs[s];
            e += m_.a_star[r] * value(m_.activation, u);
        }
        for (Index k = 0; k < p_; ++k) {
            Lanes u = roots_[k] * x[k];
            scaled_[k] = u;
            for (Index j = 0; j < k; ++j) u += L_[tri(k, j)] * scaled_[j];
            w_[k] = u;
            for (Index r = 0; r < ps_; ++r) u += B_[k * ps_ + r] * xs[r];
            lambda_[k] = u;
            e -= a_[k] * value(m_.activation, u);
        }
        if (m_.noise_var > 0.0) {
            e += std::sqrt(m_.noise_var) * z_[n + 1];
        }
        const double scale = 1.0 / (dim_ * static_cast<double>(m_.batch));
        const Lanes step_size = (m_.lr * scale) * e;
        for (Index k = 0; k < p_; ++k)
            c_[k] = step_size * (a_[k] * slope(m_.activation, lambda_[k]));
        if (m_.second_layer_lr != 0.0) {
            const Lanes rate = (m_.second_layer_lr * scale) * e;
            for (Index k = 0; k < p_; ++k) da_[k] += rate * value(m_.activation, lambda_[k]);
        }
    }

    void single(std::uint64_t step) {
        square_root(Q_.data(), L_.data(), roots_.data(), LD_.data(), p_);
        std::fill(da_.begin(), da_.end(), lanes(0.0));
        sample(step, 0);
        const Lanes *xs = z_.data(), *x = z_.data() + ps_;
        Lanes norm2 = rng::chi_square(norm_, dim_ - static_cast<double>(ps_ + p_), 0, step,
                                      replica_, spare_, z_[ps_ + p_]);
        for (Index j = 0; j < p_; ++j) norm2 += x[j] * x[j];
        for (Index i = 0; i < p_; ++i) {
            for (Index r = 0; r < ps_; ++r) B_[i * ps_ + r] += c_[i] * xs[r];
            const Lanes u = w_[i] + c_[i] * norm2;
            for (Index j = 0; j <= i; ++j) Q_[tri(i, j)] += c_[i] * w_[j] + u * c_[j];
        }
        finish();
    }

    void mini_batch(std::uint64_t step) {
        square_root(Q_.data(), L_.data(), roots_.data(), LD_.data(), p_);
        for (auto* v : {&da_, &K_, &t_, &Y_, &dB_}) std::fill(v->begin(), v->end(), lanes(0.0));
        for (Index b = 0; b < m_.batch; ++b) {
            sample(step, b);
            const Lanes *xs = z_.data(), *x = z_.data() + ps_;
            for (Index i = 0; i < p_; ++i) {
                for (Index r = 0; r < ps_; ++r) dB_[i * ps_ + r] += c_[i] * xs[r];
                for (Index j = 0; j < p_; ++j) {
                    t_[i * p_ + j] += c_[i] * w_[j];
                    Y_[i * p_ + j] += c_[i] * x[j];
                }
                for (Index j = 0; j <= i; ++j) K_[tri(i, j)] += c_[i] * c_[j];
            }
        }
        // The directions outside the frame: F W F^T with F F^T = sum_b c_b c_b^T and W a Wishart
        // matrix with dim - n degrees of freedom, W = T T^T.
        square_root(K_.data(), L_.data(), roots_.data(), LD_.data(), p_);
        const Index columns = wishart_factor(step);
        for (Index i = 0; i < p_ * ps_; ++i) B_[i] += dB_[i];
        for (Index i = 0; i < p_; ++i) {
            for (Index j = 0; j <= i; ++j) {
                Lanes s = t_[i * p_ + j] + t_[j * p_ + i];
                for (Index k = 0; k < p_; ++k) s += Y_[i * p_ + k] * Y_[j * p_ + k];
                Q_[tri(i, j)] += s;
            }
        }
        for (Index k = 0; k < columns; ++k) {
            for (Index i = 0; i < p_; ++i) {
                scaled_[i] = roots_[i] * T_[i * p_ + k];
                Lanes s = scaled_[i];
                for (Index j = 0; j < i; ++j) s += L_[tri(i, j)] * scaled_[j];
                w_[i] = s;
            }
            for (Index i = 0; i < p_; ++i) {
                for (Index j = 0; j <= i; ++j) Q_[tri(i, j)] += w_[i] * w_[j];
            }
        }
        finish();
    }

    // T (p, columns) with T T^T a Wishart matrix: Bartlett's triangle, or plain normals when there
    // are fewer degrees of freedom than rows.
    Index wishart_factor(std::uint64_t step) {
        const double dof = dim_ - static_cast<double>(ps_ + p_);
        const bool bartlett = dof >= static_cast<double>(p_);
        const Index columns = bartlett ? p_ : static_cast<Index>(dof);
        // Counters of these normals lie above those of the chi-squares (slot << 12).
        std::uint64_t block = 0xC0000000ULL;
        for (Index i = 0; i < p_; ++i) {
            for (Index j = 0; j < columns; j += 2) {
                Lanes z0, z1;
                rng::normals(rng::draw(norm_, words(block++), step, replica_), z0, z1);
                T_[i * p_ + j] = z0;
                if (j + 1 < columns) T_[i * p_ + j + 1] = z1;
            }
            if (!bartlett) continue;
            T_[i * p_ + i] = sqrt(rng::chi_square(norm_, dof - static_cast<double>(i),
                                                  static_cast<std::uint32_t>(i), step, replica_));
            for (Index j = i + 1; j < p_; ++j) T_[i * p_ + j] = lanes(0.0);
        }
        return columns;
    }

    void finish() {
        if (m_.second_layer_lr != 0.0) {
            for (Index k = 0; k < p_; ++k) a_[k] += da_[k];
        }
        if (!m_.spherical) return;
        for (Index k = 0; k < p_; ++k) {
            Lanes q = Q_[tri(k, k)];
            for (Index r = 0; r < ps_; ++r) q += B_[k * ps_ + r] * B_[k * ps_ + r];
            w_[k] = sqrt(kept_[k] / q);
        }
        for (Index i = 0; i < p_; ++i) {
            for (Index r = 0; r < ps_; ++r) B_[i * ps_ + r] *= w_[i];
            for (Index j = 0; j <= i; ++j) Q_[tri(i, j)] *= w_[i] * w_[j];
        }
    }

    const Model& m_;
    const Index p_, ps_;
    const double dim_;
    const double *Lstar_, *norms_;
    const Key fields_, norm_;
    Words replica_;
    std::vector<Lanes> B_, Q_, L_, LD_, roots_, a_, kept_, z_, w_, scaled_, lambda_, c_, da_;
    rng::Block spare_;
    std::vector<Lanes> K_, T_, t_, Y_, dB_;
};

}  // namespace

void chain_advance(const Model& model, double dim, const double* Lstar, const double* norms,
                   ChainState state, Index replicas, std::uint64_t seed, std::uint64_t step,
                   Index steps, int threads) {
    with_static_size(model.p, [&](auto width) {
        parallel_for((replicas + LANES - 1) / LANES, threads, [&](Index group) {
            LaneGroup<decltype(width)::value>(model, dim, Lstar, norms, seed)
                .run(state, group * LANES, replicas, step, steps);
        });
    });
}

}  // namespace overparam::sgd
