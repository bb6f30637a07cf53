// Dense products of large matrices through a table of pointers. The Python layer fills the table
// with the routines that SciPy exports; until then, and in the C++ tests, Eigen does the work.
#pragma once

namespace overparam::blas {

// Fortran dgemm: C = alpha op(A) op(B) + beta C, column-major.
using Dgemm = void (*)(char* transa, char* transb, int* m, int* n, int* k, double* alpha, double* a,
                       int* lda, double* b, int* ldb, double* beta, double* c, int* ldc);

void set_dgemm(Dgemm routine);
bool has_dgemm();

// C (m x n) = alpha A (m x k) B (k x n) + beta C, all column-major and contiguous.
void gemm(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
          double* c);

// The same with A stored as its transpose (k x m), or B as its transpose (n x k).
void gemm_tn(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c);
void gemm_nt(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c);

}  // namespace overparam::blas
