#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/simd.hpp"
#include "base/threads.hpp"
#include "models/empirical_flow.hpp"

namespace overparam::empirical_flow {

namespace {

using Eigen::Map;
using Eigen::MatrixXd;

constexpr double SQRT2 = 1.41421356237309504880;
constexpr std::uint64_t SIGN = 0x8000000000000000ULL;
// Entries whose signs are in one pack of words: bit 63 - v of lane l is that of entry 8 v + l.
constexpr Index SIGNED = 64 * LANES;
// Diagonal that is added to the covariance of the noise, relative to its first entry.
constexpr double JITTER = 1e-9;

inline Words load_words(const std::uint64_t* p) {
    Words w;
    std::memcpy(&w, p, sizeof w);
    return w;
}

// Rows of the history come four at a time, lane by lane in turn, so that reading them is one
// stream.
constexpr Index ROWS = EffectiveModel::ROWS;

// Place of the first entry of row s.
inline Index place(Index s, Index size) { return s / ROWS * ROWS * size + s % ROWS * LANES; }

// sum_of += coefficients . rows, for all rows below `count` of `size` entries, and dots[s] =
// <row s, x>. Both vectors have room for a multiple of ROWS; what is beyond `count` there is zero
// in the rows or in the coefficients. sum_of and x stay in the first cache.
template <bool DOTS, bool SUM, class Real>
void scan(const Real* rows, Index count, Index size, const double* x, const double* coefficients,
          double* dots, double* sum_of) {
    for (Index s = 0; s < count; s += ROWS) {
        Lanes total[ROWS], factor[ROWS];
        for (Index i = 0; i < ROWS; ++i) {
            total[i] = lanes(0.0);
            factor[i] = lanes(SUM ? coefficients[s + i] : 0.0);
        }
        for (Index e = 0; e < size; e += LANES, rows += ROWS * LANES) {
            Lanes other = lanes(0.0), added = lanes(0.0);
            if (DOTS) other = load(x + e);
            if (SUM) added = load(sum_of + e);
            for (Index i = 0; i < ROWS; ++i) {
                const Lanes row = load(rows + i * LANES);
                if (DOTS) total[i] += row * other;
                if (SUM) added += factor[i] * row;
            }
            if (SUM) store(sum_of + e, added);
        }
        if (DOTS) {
            for (Index i = 0; i < ROWS; ++i) dots[s + i] = sum(total[i]);
        }
    }
}

// dots[i] = sum of +-x with the signs of row i.
template <Index COUNT>
void signed_sums(const std::uint64_t* signs, Index count, const double* x, double* dots) {
    Lanes total[COUNT];
    for (Index i = 0; i < COUNT; ++i) total[i] = lanes(0.0);
    const Words mask = words(SIGN);
    for (Index w = 0; w < count; w += LANES, x += SIGNED) {
        Words bits[COUNT];
        for (Index i = 0; i < COUNT; ++i) bits[i] = load_words(signs + i * count + w);
        for (Index v = 0; v < SIGNED; v += LANES) {
            const Words value = as_words(load(x + v));
            for (Index i = 0; i < COUNT; ++i) {
                total[i] += as_lanes(value ^ (bits[i] & mask));
                bits[i] = bits[i] << 1;
            }
        }
    }
    for (Index i = 0; i < COUNT; ++i) dots[i] = sum(total[i]);
}

// The sum of products in an order that does not depend on where the vectors lie.
double dot(const double* a, const double* b, Index count) {
    Lanes total = lanes(0.0);
    Index i = 0;
    for (; i + LANES <= count; i += LANES) total += load(a + i) * load(b + i);
    double rest = 0.0;
    for (; i < count; ++i) rest += a[i] * b[i];
    return sum(total) + rest;
}

// The lower triangle by columns, off the diagonal times sqrt 2.
void pack(const double* S, Index d, double* packed) {
    for (Index j = 0; j < d; ++j) {
        const double* column = S + j * d;
        *packed++ = column[j];
        for (Index i = j + 1; i < d; ++i) *packed++ = SQRT2 * column[i];
    }
}

void unpack(const double* packed, Index d, double* S) {
    for (Index j = 0; j < d; ++j) {
        S[j * d + j] = *packed++;
        for (Index i = j + 1; i < d; ++i) S[j * d + i] = S[i * d + j] = *packed++ / SQRT2;
    }
}

template <class Real>
class EffectiveRun {
  public:
    // Of the groups first ... last - 1.
    EffectiveRun(const EffectiveModel& model, const EffectiveState<Real>& state, int threads,
                 Index first, Index last)
        : e_(model),
          s_(state),
          threads_(threads),
          first_(first),
          last_(last),
          d_(static_cast<int>(model.d)),
          columns_(static_cast<int>(model.columns())),
          rows_(model.steps + 1),
          kept_(model.rows()),
          padded_(model.blocks() * model.block()),
          signed_(model.words() / LANES * SIGNED),
          states_((last - first) * model.group_size() * (1 + model.probes)),
          pieces_((last - first) * model.group_size() * model.blocks()),
          weights_(model.d * model.columns()),
          noise_(rng::stream_key(model.seed, rng::Purpose::FIELDS)),
          probe_(rng::stream_key(model.seed, rng::Purpose::PROBES)) {
        const double d = static_cast<double>(e_.d);
        spread_ = std::sqrt(2.0 / d);
    }

    void start() {
        const Index d = e_.d, m = e_.m, normals = 2 * LANES;
        const auto draw = [&](rng::Purpose purpose, Index replica, Index width) {
            const Index packs = (d * width + normals - 1) / normals;
            std::vector<double> drawn(packs * normals);
            rng::fill_normals(rng::stream_key(e_.seed, purpose), 0,
                              static_cast<std::uint64_t>(replica), packs, drawn.data());
            return MatrixXd(Map<const MatrixXd>(drawn.data(), d, width));
        };
        parallel_for(e_.replicas, threads_, [&](Index r) {
            MatrixXd W = draw(rng::Purpose::STUDENT, r, m) * e_.init_scale /
                         std::sqrt(static_cast<double>(m));
            if (m > d) {
                const Eigen::HouseholderQR<MatrixXd> qr(W.transpose());
                W = qr.matrixQR().topRows(d).template triangularView<Eigen::Upper>().transpose();
            }
            for (Index parity = 0; parity < 2; ++parity) {
                std::copy_n(W.data(), weights_, weights(parity, r * (1 + e_.probes)));
            }
            MatrixXd S = MatrixXd::Zero(d, d);
            if (!e_.teacher.empty()) {
                for (Index i = 0; i < d; ++i) S(i, i) = e_.teacher[i];
            } else {
                const MatrixXd G = draw(rng::Purpose::TEACHER, r, e_.teacher_width);
                blas::gemm_nt(d_, d_, static_cast<int>(e_.teacher_width),
                              e_.teacher_scale / static_cast<double>(e_.teacher_width), G.data(),
                              G.data(), 0.0, S.data());
            }
            pack(S.data(), d, s_.teacher + r * padded_);
        });
    }

    Index advance(Index first, Index count) {
        matrices_.resize(states_ * 2 * e_.d * e_.d);
        packed_.assign(states_ * signed_, 0.0);
        forces_.assign(states_ * signed_, 0.0);
        responses_.resize(states_ * rows_);
        products_.resize(pieces_ * kept_);
        observed_.resize(states_ * 2);
        const Index state = first_ * e_.group_size() * (1 + e_.probes);
        const Index piece = first_ * e_.group_size() * e_.blocks();
        for (Index done = 0; done < count; ++done) {
            const Index t = first + done;
            parallel_for(states_, threads_, [&](Index i) { measure(t, state + i); });
            bool finite = true;
            for (Index g = first_; g < last_; ++g) finite = respond(t, g) && finite;
            if (!finite) return done;
            parallel_for(pieces_, threads_, [&](Index i) { remember(t, piece + i); });
            std::vector<char> fine(last_ - first_);
            parallel_for(last_ - first_, threads_,
                         [&](Index i) { fine[i] = correlate(t, first_ + i); });
            if (std::find(fine.begin(), fine.end(), 0) != fine.end()) return done;
            if (t == e_.steps) {
                parallel_for(pieces_, threads_, [&](Index i) { project(piece + i); });
                for (Index g = first_; g < last_; ++g) check(g);
            } else {
                parallel_for(pieces_, threads_, [&](Index i) { disturb(t, piece + i); });
                parallel_for(states_, threads_, [&](Index i) { step(t, state + i); });
            }
        }
        return count;
    }

  private:
    Index replica(Index state) const { return state / (1 + e_.probes); }
    Index group(Index replica) const { return replica / e_.group_size(); }
    double* weights(Index parity, Index state) const {
        return s_.W + ((parity & 1) * e_.replicas * (1 + e_.probes) + state) * weights_;
    }
    double* kernel(double* kernels, Index g, Index row) const {
        return kernels + (g * rows_ + row) * rows_;
    }
    // Working space of a student or a tangent, and of a block of entries.
    Index local(Index state) const { return state - first_ * e_.group_size() * (1 + e_.probes); }
    double* matrices(Index state) { return matrices_.data() + local(state) * 2 * e_.d * e_.d; }
    double* packed(Index state) { return packed_.data() + local(state) * signed_; }
    double* force(Index state) { return forces_.data() + local(state) * signed_; }
    double* responses(Index state) { return responses_.data() + local(state) * rows_; }
    double* observed(Index state) { return observed_.data() + local(state) * 2; }
    double* products(Index piece) {
        return products_.data() + (piece - first_ * e_.group_size() * e_.blocks()) * kept_;
    }
    // The history of a block of entries, of the n-th matrix.
    Real* history(Real* all, Index n, Index block) const {
        return all + (n * e_.blocks() + block) * kept_ * e_.block();
    }
    // Row s of such a history as a whole.
    void read(const Real* block, Index s, double* row) const {
        const Real* from = block + place(s, e_.block());
        for (Index e = 0; e < e_.block(); e += LANES, from += ROWS * LANES) {
            for (Index l = 0; l < LANES; ++l) row[e + l] = from[l];
        }
    }
    void write(Real* block, Index s, const double* row) const {
        Real* to = block + place(s, e_.block());
        for (Index e = 0; e < e_.block(); e += LANES, to += ROWS * LANES) {
            for (Index l = 0; l < LANES; ++l) to[l] = static_cast<Real>(row[e + l]);
        }
    }
    Index tangent(Index state) const { return replica(state) * e_.probes + probe(state); }
    Index probe(Index state) const { return state % (1 + e_.probes) - 1; }
    std::uint64_t* signs(Index tangent, Index t) const {
        return s_.signs + (tangent * e_.steps + t) * e_.words();
    }
    double rate(Index t) const { return e_.lr[std::min(t, static_cast<Index>(e_.lr.size()) - 1)]; }
    double ridge(Index t) const {
        return e_.ridge[std::min(t, static_cast<Index>(e_.ridge.size()) - 1)];
    }

    // S_t - S* or dS_t into the history, with what is read from them.
    void measure(Index t, Index state) {
        const Index d = e_.d;
        double *S = matrices(state), *packed = this->packed(state);
        const double* W = weights(t, state - probe(state) - 1);
        const double* tangents = weights(t, state);
        blas::gemm_nt(d_, d_, columns_, 1.0, tangents, W, 0.0, S);
        if (probe(state) < 0) {
            const Index r = replica(state);
            pack(S, d, packed);
            const double* teacher = s_.teacher + r * padded_;
            double trace = 0.0, overlap = 0.0;
            for (Index i = 0; i < d; ++i) trace += S[i * d + i];
            for (Index e = 0; e < e_.entries(); ++e) {
                overlap += packed[e] * teacher[e];
                packed[e] -= teacher[e];
            }
            observed(state)[0] = trace / static_cast<double>(d);
            observed(state)[1] = overlap / static_cast<double>(d);
            record(packed, s_.error, r, t);
            return;
        }
        for (Index j = 0; j < d; ++j) {
            for (Index i = j; i < d; ++i) S[j * d + i] += S[i * d + j];
        }
        pack(S, d, packed);
        record(packed, s_.tangent, tangent(state), t);
        double* dots = responses(state);
        Index s = 0;
        for (; s + ROWS <= t; s += ROWS) {
            signed_sums<ROWS>(signs(tangent(state), s), e_.words(), packed, dots + s);
        }
        for (; s < t; ++s) signed_sums<1>(signs(tangent(state), s), e_.words(), packed, dots + s);
    }

    void record(const double* packed, Real* all, Index n, Index t) const {
        for (Index b = 0; b < e_.blocks(); ++b) {
            write(history(all, n, b), t, packed + b * e_.block());
        }
    }

    // Rows t of chi and M.
    bool respond(Index t, Index g) {
        const double d = static_cast<double>(e_.d);
        double *chi = kernel(s_.response, g, t), *M = kernel(s_.memory, g, t);
        const Index size = e_.group_size();
        std::fill_n(chi, rows_, 0.0);
        double trace = 0.0, overlap = 0.0, exact = 0.0;
        for (Index r = g * size; r < (g + 1) * size; ++r) {
            const Index student = r * (1 + e_.probes);
            for (Index k = 0; k < e_.probes; ++k) {
                const double* dots = responses(student + 1 + k);
                for (Index s = 0; s + 1 < t; ++s) chi[s] += dots[s];
            }
            exact += s_.subdiagonal[r];
            trace += observed(student)[0];
            overlap += observed(student)[1];
        }
        const double n = static_cast<double>(size);
        const double scale = spread_ / (2.0 * d * n * static_cast<double>(e_.probes));
        for (Index s = 0; s + 1 < t; ++s) chi[s] *= scale;
        if (t > 0) chi[t - 1] = exact / n;
        s_.trace[g * rows_ + t] = trace / n;
        s_.overlap[g * rows_ + t] = overlap / n;
        std::fill_n(M, rows_, 0.0);
        for (Index u = 0; u < t; ++u) {
            const double weight = chi[u] / e_.alpha;
            const double* row = kernel(s_.memory, g, u);
            for (Index s = 0; s <= u; ++s) M[s] += weight * row[s];
        }
        M[t] = 1.0;
        double total = 0.0;
        for (Index s = 0; s <= t; ++s) total += M[s];
        return std::isfinite(total);
    }

    // Coefficients for the rows up to t of the history.
    std::vector<double> coefficients(const double* row, Index t, double factor) const {
        std::vector<double> out(kept_, 0.0);
        for (Index s = 0; s <= t; ++s) out[s] = factor * row[s];
        return out;
    }

    // Products of S_t - S* with the past, and the sums over the past in B and dB.
    void remember(Index t, Index piece) {
        const Index r = piece / e_.blocks(), b = piece % e_.blocks(), size = e_.block();
        const std::vector<double> M = coefficients(kernel(s_.memory, group(r), t), t, 1.0);
        const Index first = r * (1 + e_.probes);
        const Real* errors = history(s_.error, r, b);
        double now[512];
        read(errors, t, now);
        double* sum_of = force(first) + b * size;
        std::fill_n(sum_of, size, 0.0);
        scan<true, true>(errors, t + 1, size, now, M.data(), products(piece), sum_of);
        if (t == e_.steps) return;
        for (Index k = 0; k < e_.probes; ++k) {
            double* dB = force(first + 1 + k) + b * size;
            std::fill_n(dB, size, 0.0);
            scan<false, true>(history(s_.tangent, r * e_.probes + k, b), t + 1, size, nullptr,
                              M.data(), nullptr, dB);
        }
    }

    // Rows t of C, C_r and of the Cholesky factor of C_r/(4 alpha).
    bool correlate(Index t, Index g) {
        const double d = static_cast<double>(e_.d);
        const Index size = e_.group_size();
        double *C = kernel(s_.correlation, g, t), *residual = kernel(s_.residual, g, t);
        std::fill_n(C, t + 1, 0.0);
        for (Index piece = g * size * e_.blocks(); piece < (g + 1) * size * e_.blocks(); ++piece) {
            const double* dots = products(piece);
            for (Index s = 0; s <= t; ++s) C[s] += dots[s];
        }
        for (Index s = 0; s <= t; ++s) {
            C[s] *= 2.0 / (d * static_cast<double>(size));
            kernel(s_.correlation, g, s)[t] = C[s];
        }
        const double* M = kernel(s_.memory, g, t);
        double total = 0.0;
        for (Index u = 0; u <= t; ++u) total += M[u];
        std::vector<double> filtered(t + 1);
        for (Index u = 0; u <= t; ++u) {
            filtered[u] = dot(kernel(s_.correlation, g, u), M, t + 1) + e_.noise_var * total;
        }
        bool finite = true;
        for (Index s = 0; s <= t; ++s) {
            residual[s] = dot(kernel(s_.memory, g, s), filtered.data(), s + 1);
            kernel(s_.residual, g, s)[t] = residual[s];
            finite = finite && std::isfinite(residual[s]);
        }
        if (!finite) return false;
        if (t == e_.steps) return true;
        double* L = kernel(s_.factor, g, t);
        std::fill_n(L, rows_, 0.0);
        const double floor = JITTER * *kernel(s_.residual, g, 0) / (4.0 * e_.alpha);
        if (floor == 0.0) return true;
        double rest = residual[t] / (4.0 * e_.alpha) + floor;
        for (Index s = 0; s < t; ++s) {
            const double* other = kernel(s_.factor, g, s);
            L[s] = (residual[s] / (4.0 * e_.alpha) - dot(other, L, s)) / other[s];
            rest -= L[s] * L[s];
        }
        L[t] = std::sqrt(std::max(rest, floor));
        return true;
    }

    // Adds the noise of step t to B. Replicas of a group come in pairs with opposite noise, which
    // takes from all means what is odd in it.
    void disturb(Index t, Index piece) {
        const Index r = piece / e_.blocks(), b = piece % e_.blocks(), size = e_.block();
        const Index odd = r % e_.group_size() % 2;
        Real* normals = history(s_.noise, r, b);
        double drawn[512];
        rng::fill_normals(noise_, static_cast<std::uint64_t>(t),
                          static_cast<std::uint64_t>(r - odd), size / (2 * LANES), drawn,
                          static_cast<std::uint64_t>(b * size / 2));
        if (odd) {
            for (Index e = 0; e < size; ++e) drawn[e] = -drawn[e];
        }
        write(normals, t, drawn);
        const std::vector<double> L = coefficients(kernel(s_.factor, group(r), t), t, spread_);
        scan<false, true>(normals, t + 1, size, nullptr, L.data(), nullptr,
                          force(r * (1 + e_.probes)) + b * size);
    }

    // W_(t+1) or dW_(t+1).
    void step(Index t, Index state) {
        const Index d = e_.d, student = state - probe(state) - 1;
        double *B = matrices(state), *dB = B + d * d;
        unpack(force(student), d, B);
        for (Index i = 0; i < d; ++i) B[i * d + i] += ridge(t);
        const double *W = weights(t, student), *now = weights(t, state);
        double* next = weights(t + 1, state);  // until now it holds what was before `now`
        for (Index i = 0; i < weights_; ++i) {
            next[i] = now[i] + e_.momentum * (now[i] - next[i]);
        }
        blas::gemm(d_, columns_, d_, -rate(t), B, now, 1.0, next);
        if (probe(state) < 0) {
            double product = 0.0;
            for (Index i = 0; i < weights_; ++i) product += W[i] * next[i];
            const double n = static_cast<double>(d);
            s_.subdiagonal[replica(state)] = -rate(t) * product * (n + 1.0) / (n * n);
            return;
        }
        double* packed = force(state);
        shake(t, tangent(state), packed);
        unpack(packed, d, dB);
        blas::gemm(d_, columns_, d_, -rate(t), dB, W, 1.0, next);
    }

    // Draws the probe of step t and adds it.
    void shake(Index t, Index tangent, double* packed) {
        std::uint64_t* bits = signs(tangent, t);
        for (Index w = 0; w < e_.words(); w += 2 * LANES) {
            const rng::Block block = rng::draw(
                probe_, rng::lane_numbers() + static_cast<std::uint64_t>(w / 2),
                static_cast<std::uint64_t>(t), words(static_cast<std::uint64_t>(tangent)));
            const Words pair[2] = {(block.w0 << 32) | (block.w1 & 0xffffffffULL),
                                   (block.w2 << 32) | (block.w3 & 0xffffffffULL)};
            for (Index half = 0; half < 2 && w + half * LANES < e_.words(); ++half) {
                std::memcpy(bits + w + half * LANES, &pair[half], sizeof pair[half]);
            }
        }
        const Words size = as_words(lanes(spread_));
        for (Index w = 0; w < e_.words(); w += LANES) {
            Words word = load_words(bits + w);
            for (Index v = 0; v < SIGNED; v += LANES, packed += LANES) {
                store(packed, load(packed) + as_lanes(size ^ (word & SIGN)));
                word = word << 1;
            }
        }
    }

    // Products of the normals of all times with S_T - S_0.
    void project(Index piece) {
        const Index r = piece / e_.blocks(), b = piece % e_.blocks(), size = e_.block();
        const Real* errors = history(s_.error, r, b);
        double change[512], start[512];
        read(errors, e_.steps, change);
        read(errors, 0, start);
        for (Index e = 0; e < size; ++e) change[e] -= start[e];
        scan<true, false>(history(s_.noise, r, b), e_.steps, size, change, nullptr, products(piece),
                          nullptr);
    }

    void check(Index g) {
        const Index size = e_.group_size();
        double* stein = s_.stein + g * rows_;
        std::fill_n(stein, rows_, 0.0);
        for (Index piece = g * size * e_.blocks(); piece < (g + 1) * size * e_.blocks(); ++piece) {
            const double* dots = products(piece);
            for (Index u = 0; u < e_.steps; ++u) stein[u] += dots[u];
        }
        const double scale = spread_ / (2.0 * static_cast<double>(e_.d * size));
        for (Index u = 0; u < e_.steps; ++u) stein[u] *= scale;
    }

    const EffectiveModel& e_;
    const EffectiveState<Real>& s_;
    const int threads_;
    const Index first_, last_;
    const int d_, columns_;
    // Rows of the kernels and of the history; lengths of packed matrices; students with tangents;
    // entries of W.
    const Index rows_, kept_, padded_, signed_, states_, pieces_, weights_;
    const rng::Key noise_, probe_;
    double spread_;  // standard deviation of an entry of a packed GOE
    std::vector<double> matrices_, packed_, forces_, responses_, products_, observed_;
};

}  // namespace

template <class Real>
void effective_start(const EffectiveModel& model, const EffectiveState<Real>& state, int threads) {
    EffectiveRun<Real>(model, state, threads, 0, model.groups).start();
}

// Groups have nothing to say to each other: where there are enough of them, each thread runs its
// own, and threads meet only at the end. Otherwise they share the work of each step.
template <class Real>
Index effective_advance(const EffectiveModel& model, const EffectiveState<Real>& state, Index first,
                        Index count, int threads) {
    const Index groups = model.groups;
    if (threads > 1 && groups % threads != 0 && groups < 4 * threads) {
        return EffectiveRun<Real>(model, state, threads, 0, groups).advance(first, count);
    }
    std::vector<Index> done(groups);
    parallel_for(groups, threads, [&](Index g) {
        done[g] = EffectiveRun<Real>(model, state, 1, g, g + 1).advance(first, count);
    });
    return *std::min_element(done.begin(), done.end());
}

template void effective_start(const EffectiveModel&, const EffectiveState<double>&, int);
template void effective_start(const EffectiveModel&, const EffectiveState<float>&, int);
template Index effective_advance(const EffectiveModel&, const EffectiveState<double>&, Index, Index,
                                 int);
template Index effective_advance(const EffectiveModel&, const EffectiveState<float>&, Index, Index,
                                 int);

}  // namespace overparam::empirical_flow
