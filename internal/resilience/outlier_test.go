package resilience_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/resilience"
)

func TestOutliers(t *testing.T) {
	t.Parallel()
	fine := resilience.Stats{OK: 100}
	poor := resilience.Stats{OK: 70, Failed: 30}
	streak := resilience.Stats{Failed: 5, Streak: 5}
	out := resilience.Stats{Ejected: true}
	for name, c := range map[string]struct {
		group []resilience.Stats
		want  []int
	}{
		"nobody":                          {nil, nil},
		"all fine":                        {[]resilience.Stats{fine, fine, fine}, nil},
		"one poor":                        {[]resilience.Stats{fine, poor, fine}, []int{1}},
		"all poor":                        {[]resilience.Stats{poor, poor, poor}, nil},
		"too few calls":                   {[]resilience.Stats{fine, {OK: 9, Failed: 10}, fine}, nil},
		"nobody to compare with":          {[]resilience.Stats{poor}, nil},
		"only quiet ones beside":          {[]resilience.Stats{poor, {OK: 3}}, nil},
		"a streak":                        {[]resilience.Stats{{OK: 3}, streak}, []int{1}},
		"a streak of the only one":        {[]resilience.Stats{streak}, nil},
		"a short streak":                  {[]resilience.Stats{fine, {Failed: 4, Streak: 4}}, nil},
		"half at most":                    {[]resilience.Stats{streak, streak, streak, streak}, []int{0, 1}},
		"half at most, of three":          {[]resilience.Stats{streak, streak, fine}, []int{0}},
		"those that are out count":        {[]resilience.Stats{streak, out, fine}, nil},
		"the worst first":                 {[]resilience.Stats{{OK: 40, Failed: 60}, {OK: 10, Failed: 90}, fine, fine}, []int{1, 0}},
		"the longer streak first":         {[]resilience.Stats{streak, {Failed: 9, Streak: 9}, fine}, []int{1}},
		"one that is out is not repeated": {[]resilience.Stats{fine, fine, {Failed: 100, Streak: 100, Ejected: true}, fine}, nil},
	} {
		if diff := cmp.Diff(c.want, resilience.Outliers(c.group)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func stats(t *rapid.T) []resilience.Stats {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) resilience.Stats {
		return resilience.Stats{
			OK: rapid.IntRange(0, 200).Draw(t, "ok"), Failed: rapid.IntRange(0, 200).Draw(t, "failed"),
			Streak: rapid.IntRange(0, 10).Draw(t, "streak"), Ejected: rapid.IntRange(0, 3).Draw(t, "ejected") == 0,
		}
	}), 0, 20).Draw(t, "group")
}

func TestOutliersNeverTakeMoreThanHalf(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		group := stats(t)
		already := 0
		for _, s := range group {
			if s.Ejected {
				already++
			}
		}
		found := resilience.Outliers(group)
		if len(found) > 0 && already+len(found) > len(group)/2 {
			t.Fatalf("%d of %d are ejected, %d were already", len(found), len(group), already)
		}
		sorted := slices.Sorted(slices.Values(found))
		if len(slices.Compact(sorted)) != len(found) {
			t.Fatalf("one is ejected twice: %v", found)
		}
		for _, i := range found {
			s := group[i]
			if s.Ejected || s.Failed == 0 && s.Streak < resilience.OutlierStreak {
				t.Fatalf("%+v is ejected", s)
			}
		}
	})
}

func TestEjectionGrows(t *testing.T) {
	t.Parallel()
	for times, want := range map[int]time.Duration{0: 10 * time.Second, 1: 10 * time.Second, 2: 20 * time.Second, 30: 5 * time.Minute, 1 << 40: 5 * time.Minute} {
		if got := resilience.EjectionTime(times, 0.5); got != want {
			t.Errorf("the %dth ejection takes %v, want %v", times, got, want)
		}
	}
	h, tr := joined()
	h.Eject(0, 0.5)
	if h.Standing(9*time.Second) != resilience.Ejected || h.Standing(10*time.Second) != 0 || tr.Trouble() {
		t.Error("the first does not take 10 s")
	}
	h.Eject(20*time.Second, 0.5)
	if h.Standing(39*time.Second) != resilience.Ejected || h.Standing(40*time.Second) != 0 {
		t.Error("the second does not take 20 s")
	}
	h.Eject(time.Hour, 0.5)
	if h.Standing(time.Hour+11*time.Second) != 0 {
		t.Error("what was long ago is remembered")
	}
	for range 5 {
		h.Record(time.Hour, 0, resilience.Failed, 0)
	}
	if s := h.Stats(time.Hour); s.Streak != 5 || s.Failed != 5 {
		t.Errorf("%+v", s)
	}
	h.Eject(time.Hour, 0)
	if s := h.Stats(time.Hour); s != (resilience.Stats{Ejected: true}) {
		t.Errorf("it is judged by what it was ejected for: %+v", s)
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	const (
		badly, cut, out, hint = resilience.Bad, resilience.Cutoff, resilience.Ejected, resilience.Hinted
	)
	all := badly | out | hint
	for name, c := range map[string]struct {
		list []resilience.Standing
		want resilience.Standing
	}{
		"nobody":                             {nil, 0},
		"all fine":                           {[]resilience.Standing{0, 0}, all},
		"one hinted":                         {[]resilience.Standing{0, hint}, all},
		"all hinted":                         {[]resilience.Standing{hint, hint}, badly | out},
		"hinted, and the other is cut off":   {[]resilience.Standing{hint, cut}, badly | out},
		"hinted, and the other is ejected":   {[]resilience.Standing{hint, out}, badly | out},
		"hinted, and the other is not there": {[]resilience.Standing{hint, badly}, badly | out},
		"all ejected":                        {[]resilience.Standing{out, out | hint}, badly},
		"all cut off":                        {[]resilience.Standing{cut, cut}, 0},
		"nobody is reached":                  {[]resilience.Standing{badly, badly | hint}, 0},
	} {
		if got := resilience.Screen(c.list); got != c.want {
			t.Errorf("%s: avoid %04b, want %04b", name, got, c.want)
		}
	}
}

// Whatever is known of the instances: where the breakers allow somebody, somebody is
// left to be preferred, unless nobody can be reached; and what was avoided is worse than
// what was not.
func TestScreenLeavesSomebody(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOf(rapid.Custom(func(t *rapid.T) resilience.Standing {
			return resilience.Standing(rapid.IntRange(0, 15).Draw(t, "standing"))
		})).Draw(t, "list")
		avoid := resilience.Screen(list)
		allowed, reached, left := 0, 0, 0
		for _, s := range list {
			if s&resilience.Cutoff != 0 {
				continue
			}
			allowed++
			if s&resilience.Bad == 0 {
				reached++
			}
			if s&avoid == 0 {
				left++
			}
		}
		if allowed > 0 && left == 0 {
			t.Fatalf("nobody is left of %v", list)
		}
		if reached > 0 && avoid&resilience.Bad == 0 {
			t.Fatalf("who cannot be reached is not avoided in %v", list)
		}
		if avoid&resilience.Hinted == 0 {
			for _, s := range list {
				if s == 0 {
					t.Fatalf("hints are ignored although %v has one without", list)
				}
			}
		}
	})
}
