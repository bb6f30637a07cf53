// Eigenvalues of diagonal matrices with a perturbation of rank one.
#pragma once

#include <vector>

namespace overparam {

// An eigenvalue as pole + offset, without the cancellation of its distance to the nearest pole.
struct SecularRoot {
    std::size_t nearest;  // number of the pole
    double offset;

    double distance(const std::vector<double>& poles, std::size_t k) const {
        return (poles[nearest] - poles[k]) + offset;
    }
};

// The roots z of 1 = sum_k weight_k/(z - pole_k) for strictly increasing poles and positive
// weights, the eigenvalues of diag(poles) + w w^T with w_k^2 = weight_k: one above each pole, in
// increasing order.
std::vector<SecularRoot> secular_roots(const std::vector<double>& poles,
                                       const std::vector<double>& weights);

}  // namespace overparam
