package measure

import (
	"errors"
	"fmt"
	"math"
)

// Ratio is how one of two things compares with the other, from pairs of measurements that
// were made right after each other.
type Ratio struct {
	// Mean is the geometric mean of the ratios; the truth lies between Low and High with
	// a confidence of 95 %.
	Mean, Low, High float64
	Pairs           int
}

// errPairs says that there is nothing to compare.
var errPairs = errors.New("a ratio needs two pairs of positive figures at least")

// Pairs compares ours with theirs, pair by pair. The interval is Student's, over the
// logarithms of the ratios: what a slow moment of the machine does to both of a pair
// cancels out, and ratios err evenly on both sides.
func Pairs(ours, theirs []float64) (Ratio, error) {
	n := len(ours)
	if n < 2 || n != len(theirs) {
		return Ratio{}, fmt.Errorf("%w, got %d and %d", errPairs, n, len(theirs))
	}
	logs := make([]float64, n)
	mean := 0.0
	for i := range ours {
		if !(ours[i] > 0 && theirs[i] > 0) {
			return Ratio{}, fmt.Errorf("%w, got %v and %v", errPairs, ours[i], theirs[i])
		}
		logs[i] = math.Log(ours[i] / theirs[i])
		mean += logs[i] / float64(n)
	}
	squares := 0.0
	for _, l := range logs {
		squares += (l - mean) * (l - mean)
	}
	half := student(n-1) * math.Sqrt(squares/float64(n-1)/float64(n))
	return Ratio{math.Exp(mean), math.Exp(mean - half), math.Exp(mean + half), n}, nil
}

// student returns the 97.5 % quantile of Student's distribution with so many degrees of
// freedom.
func student(freedom int) float64 {
	table := [...]float64{
		12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
		2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
	}
	if freedom <= len(table) {
		return table[freedom-1]
	}
	// The first terms of the expansion by Cornish and Fisher; off by less than 0.001 here.
	const z = 1.959964
	f := float64(freedom)
	return z + (z*z*z+z)/(4*f) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*f*f)
}
