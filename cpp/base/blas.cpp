#include "base/blas.hpp"

#include <Eigen/Dense>

namespace overparam::blas {

namespace {
Dgemm dgemm_routine = nullptr;
}

void set_dgemm(Dgemm routine) { dgemm_routine = routine; }
bool has_dgemm() { return dgemm_routine != nullptr; }

void gemm(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
          double* c) {
    if (dgemm_routine) {
        char no = 'N';
        // The Fortran interface has no const; the inputs are not written.
        dgemm_routine(&no, &no, &m, &n, &k, &alpha, const_cast<double*>(a), &m,
                      const_cast<double*>(b), &k, &beta, c, &m);
        return;
    }
    const Eigen::Map<const Eigen::MatrixXd> A(a, m, k);
    const Eigen::Map<const Eigen::MatrixXd> B(b, k, n);
    Eigen::Map<Eigen::MatrixXd> C(c, m, n);
    if (beta == 0.0) {
        C.noalias() = alpha * A * B;
    } else {
        C *= beta;
        C.noalias() += alpha * A * B;
    }
}

}  // namespace overparam::blas
