#include "math/gauss.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

namespace overparam {

Quadrature gauss_legendre(int count) {
    Quadrature rule{std::vector<double>(count), std::vector<double>(count)};
    for (int i = 0; i < count; ++i) {
        // Newton's method on the Legendre polynomial, from the asymptotic position of its roots.
        double x = std::cos(M_PI * (i + 0.75) / (count + 0.5));
        double slope = 1.0;
        for (int iteration = 0; iteration < 100; ++iteration) {
            double previous = 1.0, value = x;
            for (int n = 2; n <= count; ++n) {
                const double next = ((2 * n - 1) * x * value - (n - 1) * previous) / n;
                previous = value;
                value = next;
            }
            slope = count * (x * value - previous) / (x * x - 1.0);
            const double change = value / slope;
            x -= change;
            if (std::abs(change) < 1e-15) break;
        }
        rule.nodes[i] = 0.5 * (1.0 - x);
        rule.weights[i] = 1.0 / ((1.0 - x * x) * slope * slope);
    }
    return rule;
}

Quadrature gauss_rule(const std::vector<double>& points, const std::vector<double>& weights,
                      int count) {
    // Recursion of the monic orthogonal polynomials by Stieltjes' procedure, on an interval of
    // length 4 so that they stay of order one; its matrix has the nodes as eigenvalues.
    const auto [least, most] = std::minmax_element(points.begin(), points.end());
    const double middle = 0.5 * (*least + *most), unit = 0.25 * (*most - *least);
    const Eigen::Map<const Eigen::ArrayXd> x(points.data(), points.size()),
        w(weights.data(), weights.size());
    const Eigen::ArrayXd u = (x - middle) / unit;
    Eigen::ArrayXd value = Eigen::ArrayXd::Ones(u.size()),
                   previous = Eigen::ArrayXd::Zero(u.size());
    Eigen::VectorXd diagonal(count), beside(count - 1);
    const double mass = w.sum();
    double norm = mass, ratio = 0.0;
    for (int k = 0; k < count; ++k) {
        diagonal(k) = (w * u * value.square()).sum() / norm;
        const Eigen::ArrayXd next = (u - diagonal(k)) * value - ratio * previous;
        if (k + 1 == count) break;
        const double up = (w * next.square()).sum();
        ratio = up / norm;
        beside(k) = std::sqrt(ratio);
        norm = up;
        previous = value;
        value = next;
    }
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver;
    solver.computeFromTridiagonal(diagonal, beside);
    Quadrature rule{std::vector<double>(count), std::vector<double>(count)};
    for (int i = 0; i < count; ++i) {
        const double first = solver.eigenvectors()(0, i);
        rule.nodes[i] = middle + unit * solver.eigenvalues()(i);
        rule.weights[i] = mass * first * first;
    }
    return rule;
}

std::vector<double> hermite_coefficients(const HermiteSeries& g, Index order) {
    std::vector<double> mu(order + 1);
    const Index given = static_cast<Index>(g.first.size());
    for (Index k = 0; k <= order; ++k) {
        if (k < given)
            mu[k] = g.first[k];
        else if (k >= 2)
            mu[k] = 0.0 - g.ratio * (k - 2 - g.shift) * mu[k - 2];  // no negative zero
    }
    return mu;
}

std::vector<double> hermite_products(const HermiteSeries& g, const HermiteSeries& h, Index order) {
    const Index given =
        static_cast<Index>(std::max({g.first.size(), h.first.size(), std::size_t{2}}));
    const auto mu = hermite_coefficients(g, given), nu = hermite_coefficients(h, given);
    std::vector<double> product(order + 1);
    double factorial = 1.0;
    for (Index k = 0; k <= order; ++k) {
        if (k > 1) factorial *= k;
        if (k < given) {
            product[k] = mu[k] * nu[k] / factorial;
        } else {
            const double i = k - 2;
            product[k] = g.ratio * h.ratio * (i - g.shift) * (i - h.shift) / (k * (k - 1.0)) *
                         product[k - 2];
        }
    }
    return product;
}

}  // namespace overparam
