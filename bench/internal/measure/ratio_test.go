package measure

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestPairs(t *testing.T) {
	t.Parallel()
	// By hand: the logarithms of 1.1, 0.9, 1.0 and 1.2, their mean and deviation, and 3.182.
	r, err := Pairs([]float64{110, 90, 200, 12}, []float64{100, 100, 200, 10})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string][2]float64{"mean": {r.Mean, 1.0440}, "low": {r.Low, 0.8573}, "high": {r.High, 1.2714}} {
		if math.Abs(c[0]-c[1]) > 0.001 {
			t.Errorf("%s is %.4f, want %.4f", what, c[0], c[1])
		}
	}
	if r, err := Pairs([]float64{2, 4, 6}, []float64{1, 2, 3}); err != nil || math.Abs(r.Low-2) > 1e-9 || math.Abs(r.High-2) > 1e-9 || r.Pairs != 3 {
		t.Errorf("pairs that agree: %+v, %v", r, err)
	}
	for name, c := range map[string][2][]float64{
		"one pair": {{1}, {1}}, "none": {nil, nil}, "uneven": {{1, 2}, {1}}, "zero": {{1, 0}, {1, 1}}, "not a number": {{1, math.NaN()}, {1, 1}},
	} {
		if r, err := Pairs(c[0], c[1]); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestIntervalHoldsTheTruth: of many experiments with noise that both of a pair share, and
// noise of their own, about one in twenty misses.
func TestIntervalHoldsTheTruth(t *testing.T) {
	t.Parallel()
	const truth, experiments = 0.97, 4000
	random := rand.New(rand.NewPCG(1, 2))
	missed := 0
	for range experiments {
		var ours, theirs []float64
		for range 10 {
			minute := math.Exp(random.NormFloat64() / 2)
			ours = append(ours, truth*minute*math.Exp(random.NormFloat64()/20))
			theirs = append(theirs, minute*math.Exp(random.NormFloat64()/20))
		}
		r, err := Pairs(ours, theirs)
		if err != nil {
			t.Fatal(err)
		}
		if truth < r.Low || truth > r.High {
			missed++
		}
	}
	if share := float64(missed) / experiments; share < 0.035 || share > 0.065 {
		t.Errorf("%.1f %% of the intervals miss, want about 5", 100*share)
	}
}

func TestStudent(t *testing.T) {
	t.Parallel()
	for freedom, want := range map[int]float64{1: 12.706, 9: 2.262, 30: 2.042, 31: 2.0395, 60: 2.0003, 1000: 1.9623} {
		if got := student(freedom); math.Abs(got-want) > 0.001 {
			t.Errorf("with %d degrees %.4f, want %.4f", freedom, got, want)
		}
	}
}
