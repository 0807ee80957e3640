package registry

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var times = guardTimes{window: 90 * time.Second, hold: time.Hour}

func TestGuardStep(t *testing.T) {
	t.Parallel()
	now := 10 * time.Minute
	held := guard{phase: holding, since: now - time.Minute}
	for _, c := range []struct {
		name  string
		g     guard
		o     outlook
		phase phase
		allow int
	}{
		{"nothing runs out", guard{}, outlook{registered: 100, silent: 100}, watching, 0},
		{"one of one", guard{}, outlook{registered: 1, lapsed: 1}, watching, 1},
		{"a few are below the floor", guard{}, outlook{registered: 15, lapsed: 15}, watching, 15},
		{"one above the floor", guard{}, outlook{registered: 16, lapsed: 16}, holding, 0},
		{"a third", guard{}, outlook{registered: 300, lapsed: 100}, watching, 100},
		{"more than a third", guard{}, outlook{registered: 300, lapsed: 101}, holding, 0},
		{"the first of many that are silent", guard{}, outlook{registered: 300, lapsed: 1, silent: 100}, holding, 0},
		{"silent ones below the limit", guard{}, outlook{registered: 300, lapsed: 1, silent: 99}, watching, 1},
		{
			"the rest of what began a moment ago",
			guard{ended: []ends{{now - time.Minute, 90}}},
			outlook{registered: 210, lapsed: 11},
			holding, 0,
		},
		{
			"what began long ago",
			guard{ended: []ends{{now - 2*time.Minute, 90}}},
			outlook{registered: 210, lapsed: 70},
			watching, 70,
		},
		{"held", held, outlook{registered: 300, lapsed: 200}, holding, 0},
		{"held, some are back", held, outlook{registered: 300, lapsed: 51}, holding, 0},
		{"held, enough are back", held, outlook{registered: 300, lapsed: 50}, watching, 50},
		{"held, enough are back but others are silent", held, outlook{registered: 300, lapsed: 40, silent: 11}, holding, 0},
		{
			"held, enough are back but it would begin anew",
			guard{phase: holding, since: now - time.Second, ended: []ends{{now - time.Second, 90}}},
			outlook{registered: 210, lapsed: 50},
			holding, 0,
		},
		{"held, all are gone otherwise", held, outlook{registered: 10}, watching, 0},
		{"held for long", guard{phase: holding, since: now - time.Hour}, outlook{registered: 300, lapsed: 200}, releasing, 0},
		{
			"released by and by",
			guard{phase: releasing, since: now, last: now - 30*time.Second, rate: 10},
			outlook{registered: 300, lapsed: 200},
			releasing, 5,
		},
		{
			"nothing is saved up for long",
			guard{phase: releasing, since: now, last: now - time.Hour, rate: 10},
			outlook{registered: 300, lapsed: 200},
			releasing, 10,
		},
		{
			"released, few are left",
			guard{phase: releasing, since: now, last: now, rate: 10},
			outlook{registered: 30, lapsed: 7},
			watching, 7,
		},
	} {
		got, allow := c.g.step(now, c.o, times)
		if got.phase != c.phase || allow != c.allow {
			t.Errorf("%s: phase %d and %d may end, want phase %d and %d", c.name, got.phase, allow, c.phase, c.allow)
		}
	}
}

// TestGuardForgetsOnlyWhatIsPast: a step changes nothing of the state it was given.
func TestGuardForgetsOnlyWhatIsPast(t *testing.T) {
	t.Parallel()
	before := guard{ended: []ends{{time.Second, 3}, {80 * time.Second, 4}}}
	after, _ := before.step(100*time.Second, outlook{registered: 100, lapsed: 2}, times)
	one, two := after.note(100*time.Second, 1), after.note(100*time.Second, 2)
	all := cmp.AllowUnexported(guard{}, ends{})
	if d := cmp.Diff(guard{ended: []ends{{time.Second, 3}, {80 * time.Second, 4}}}, before, all); d != "" {
		t.Error(d)
	}
	if one.recent() != 5 || two.recent() != 6 || after.recent() != 4 {
		t.Errorf("recent %d, %d, %d", after.recent(), one.recent(), two.recent())
	}
}

// TestGuardProperties drives a guard with whatever happens to a fleet.
func TestGuardProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var g guard
		var now time.Duration
		fleet := rapid.IntRange(1, 400).Draw(t, "fleet")
		lapsed := 0
		type end struct {
			at         time.Duration
			n          int
			population int
		}
		var unheld []end // that ended while the guard watched
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				lapsed += rapid.IntRange(0, fleet-lapsed).Draw(t, "die")
			case 1:
				lapsed -= rapid.IntRange(0, lapsed).Draw(t, "back")
			case 2:
				fleet += rapid.IntRange(0, 50).Draw(t, "new")
			}
			silent := rapid.IntRange(0, fleet-lapsed).Draw(t, "silent")
			next, allow := g.step(now, outlook{registered: fleet, lapsed: lapsed, silent: silent}, times)
			if allow < 0 || allow > lapsed {
				t.Fatalf("%d of %d may end", allow, lapsed)
			}
			if next.phase == holding && allow > 0 {
				t.Fatalf("%d end although they are held", allow)
			}
			if next.phase == watching && allow != lapsed {
				t.Fatalf("%d of %d may end although nothing is held", allow, lapsed)
			}
			if next.phase == holding && g.phase == watching && next.recent()+lapsed+silent <= guardFloor {
				t.Fatalf("held because of %d", next.recent()+lapsed+silent)
			}
			if next.phase == watching && allow > 0 {
				unheld = append(unheld, end{now, allow, fleet + next.recent()})
			}
			g = next.note(now, allow)
			fleet, lapsed = fleet-allow, lapsed-allow
			if fleet == 0 {
				fleet = 1
			}
		}
		for i, e := range unheld {
			sum := 0
			for _, f := range unheld[:i+1] {
				if e.at-f.at < times.window {
					sum += f.n
				}
			}
			if sum > limit(e.population) {
				t.Fatalf("%d of %d ended within one window", sum, e.population)
			}
		}
	})
}

// TestGuardEndsByItself: however many are gone for good, all have ended in the end.
func TestGuardEndsByItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var g guard
		fleet := rapid.IntRange(16, 5000).Draw(t, "fleet")
		dead := fleet
		var now time.Duration
		worst := 0
		for dead > 0 {
			now += time.Second
			next, allow := g.step(now, outlook{registered: fleet, lapsed: dead}, times)
			g = next.note(now, allow)
			if next.phase == releasing {
				worst = max(worst, allow)
			}
			fleet, dead = fleet-allow, dead-allow
			if now < times.hold && allow > 0 {
				t.Fatalf("%d ended after %s", allow, now)
			}
			if now > times.hold+releaseTime+time.Minute {
				t.Fatalf("%d are there after %s", dead, now)
			}
		}
		if worst > 5000/1800+1 {
			t.Fatalf("%d ended in one second", worst)
		}
	})
}
