#include "base/blas.hpp"

#include <Eigen/Dense>

namespace overparam::blas {

namespace {
Dgemm dgemm_routine = nullptr;
}

void set_dgemm(Dgemm routine) { dgemm_routine = routine; }
bool has_dgemm() { return dgemm_routine != nullptr; }

namespace {

void multiply(bool turn_a, bool turn_b, int m, int n, int k, double alpha, const double* a,
              const double* b, double beta, double* c) {
    if (dgemm_routine) {
        char ta = turn_a ? 'T' : 'N', tb = turn_b ? 'T' : 'N';
        int lda = turn_a ? k : m, ldb = turn_b ? n : k;
        // The Fortran interface has no const; the inputs are not written.
        dgemm_routine(&ta, &tb, &m, &n, &k, &alpha, const_cast<double*>(a), &lda,
                      const_cast<double*>(b), &ldb, &beta, c, &m);
        return;
    }
    using Matrix = Eigen::Map<const Eigen::MatrixXd>;
    Eigen::Map<Eigen::MatrixXd> C(c, m, n);
    if (beta == 0.0) {
        C.setZero();
    } else {
        C *= beta;
    }
    if (turn_a) {
        C.noalias() += alpha * Matrix(a, k, m).transpose() * Matrix(b, k, n);
    } else if (turn_b) {
        C.noalias() += alpha * Matrix(a, m, k) * Matrix(b, n, k).transpose();
    } else {
        C.noalias() += alpha * Matrix(a, m, k) * Matrix(b, k, n);
    }
}

}  // namespace

void gemm(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
          double* c) {
    multiply(false, false, m, n, k, alpha, a, b, beta, c);
}

void gemm_tn(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c) {
    multiply(true, false, m, n, k, alpha, a, b, beta, c);
}

void gemm_nt(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c) {
    multiply(false, true, m, n, k, alpha, a, b, beta, c);
}

}  // namespace overparam::blas
