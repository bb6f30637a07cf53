#include "base/blas.hpp"

#include <Eigen/Dense>

namespace overparam::blas {

namespace {

Routines table;

using Stride = Eigen::OuterStride<>;
using Input = Eigen::Map<const Eigen::MatrixXd, 0, Stride>;
using Output = Eigen::Map<Eigen::MatrixXd, 0, Stride>;

// The Fortran interface has no const; inputs are not written.
double* in(const double* x) { return const_cast<double*>(x); }

}  // namespace

void set_routines(const Routines& routines) { table = routines; }
bool has_routines() { return table.dgemm != nullptr; }

void gemm(bool turn_a, bool turn_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
    if (table.dgemm) {
        char ta = turn_a ? 'T' : 'N', tb = turn_b ? 'T' : 'N';
        table.dgemm(&ta, &tb, &m, &n, &k, &alpha, in(a), &lda, in(b), &ldb, &beta, c, &ldc);
        return;
    }
    Output C(c, m, n, Stride(ldc));
    if (beta == 0.0) {
        C.setZero();
    } else {
        C *= beta;
    }
    const Input A(a, turn_a ? k : m, turn_a ? m : k, Stride(lda));
    const Input B(b, turn_b ? n : k, turn_b ? k : n, Stride(ldb));
    if (turn_a && turn_b) {
        C.noalias() += alpha * A.transpose() * B.transpose();
    } else if (turn_a) {
        C.noalias() += alpha * A.transpose() * B;
    } else if (turn_b) {
        C.noalias() += alpha * A * B.transpose();
    } else {
        C.noalias() += alpha * A * B;
    }
}

void gemm(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
          double* c) {
    gemm(false, false, m, n, k, alpha, a, m, b, k, beta, c, m);
}

void gemm_tn(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c) {
    gemm(true, false, m, n, k, alpha, a, k, b, k, beta, c, m);
}

void gemm_nt(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c) {
    gemm(false, true, m, n, k, alpha, a, m, b, n, beta, c, m);
}

void syrk(bool turn, int n, int k, double alpha, const double* a, int lda, double beta, double* c,
          int ldc) {
    if (table.dsyrk) {
        char lower = 'L', trans = turn ? 'T' : 'N';
        table.dsyrk(&lower, &trans, &n, &k, &alpha, in(a), &lda, &beta, c, &ldc);
        return;
    }
    Output C(c, n, n, Stride(ldc));
    const Input A(a, turn ? k : n, turn ? n : k, Stride(lda));
    Eigen::MatrixXd product = turn ? Eigen::MatrixXd(A.transpose() * A) : A * A.transpose();
    product *= alpha;
    if (beta != 0.0) product += beta * C;
    C.triangularView<Eigen::Lower>() = product;
}

bool potrf(int n, double* a, int lda) {
    if (table.dpotrf) {
        char lower = 'L';
        int info = 0;
        table.dpotrf(&lower, &n, a, &lda, &info);
        return info == 0;
    }
    Output A(a, n, n, Stride(lda));
    const Eigen::LLT<Eigen::MatrixXd> factor(A);
    A.triangularView<Eigen::Lower>() = factor.matrixLLT();
    return factor.info() == Eigen::Success;
}

namespace {

void trsm(char side, bool turn, int m, int n, const double* l, int ldl, double* b, int ldb) {
    char lower = 'L', trans = turn ? 'T' : 'N', diagonal = 'N';
    double one = 1.0;
    table.dtrsm(&side, &lower, &trans, &diagonal, &m, &n, &one, in(l), &ldl, b, &ldb);
}

}  // namespace

void solve_right(int m, int n, const double* l, int ldl, double* b, int ldb) {
    if (table.dtrsm) return trsm('R', true, m, n, l, ldl, b, ldb);
    Output B(b, m, n, Stride(ldb));
    Input(l, n, n, Stride(ldl))
        .transpose()
        .triangularView<Eigen::Upper>()
        .solveInPlace<Eigen::OnTheRight>(B);
}

void solve_left(bool turn, int m, int n, const double* l, int ldl, double* b, int ldb) {
    if (table.dtrsm) return trsm('L', turn, m, n, l, ldl, b, ldb);
    Output B(b, m, n, Stride(ldb));
    const Input L(l, m, m, Stride(ldl));
    if (turn) {
        L.transpose().triangularView<Eigen::Upper>().solveInPlace(B);
    } else {
        L.triangularView<Eigen::Lower>().solveInPlace(B);
    }
}

}  // namespace overparam::blas
