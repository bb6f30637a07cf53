// Dense algebra of large matrices through a table of pointers. The Python layer fills the table
// with the routines that SciPy exports; until then, and in the C++ tests, Eigen does the work. All
// matrices are column-major; leading dimensions are those of BLAS.
#pragma once

namespace overparam::blas {

// Fortran dgemm: C = alpha op(A) op(B) + beta C.
using Dgemm = void (*)(char* transa, char* transb, int* m, int* n, int* k, double* alpha, double* a,
                       int* lda, double* b, int* ldb, double* beta, double* c, int* ldc);
// Fortran dsyrk, dtrsm and dpotrf.
using Dsyrk = void (*)(char* uplo, char* trans, int* n, int* k, double* alpha, double* a, int* lda,
                       double* beta, double* c, int* ldc);
using Dtrsm = void (*)(char* side, char* uplo, char* transa, char* diag, int* m, int* n,
                       double* alpha, double* a, int* lda, double* b, int* ldb);
using Dpotrf = void (*)(char* uplo, int* n, double* a, int* lda, int* info);

struct Routines {
    Dgemm dgemm = nullptr;
    Dsyrk dsyrk = nullptr;
    Dtrsm dtrsm = nullptr;
    Dpotrf dpotrf = nullptr;
};

void set_routines(const Routines& routines);
bool has_routines();

// C (m x n) = alpha A (m x k) B (k x n) + beta C, all contiguous.
void gemm(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
          double* c);

// The same with A stored as its transpose (k x m), or B as its transpose (n x k).
void gemm_tn(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c);
void gemm_nt(int m, int n, int k, double alpha, const double* a, const double* b, double beta,
             double* c);

// Blocks of larger matrices: C (m x n) = alpha op(A) op(B) + beta C.
void gemm(bool turn_a, bool turn_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc);

// Lower triangle of C (n x n) = alpha op(A) op(A)^T + beta C, with op(A) (n x k).
void syrk(bool turn, int n, int k, double alpha, const double* a, int lda, double beta, double* c,
          int ldc);

// A = L L^T in its lower triangle; false where A is not positive definite.
bool potrf(int n, double* a, int lda);

// B (m x n) L^{-T} in place of B.
void solve_right(int m, int n, const double* l, int ldl, double* b, int ldb);
// L^{-1} B, or L^{-T} B where `turn`, in place of B (m x n).
void solve_left(bool turn, int m, int n, const double* l, int ldl, double* b, int ldb);

}  // namespace overparam::blas
