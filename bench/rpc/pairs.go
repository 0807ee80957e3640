package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/bench/internal/measure"
)

// paths are the ways on which features are measured.
func paths() []struct {
	name string
	mode telford.TransportMode
} {
	return []struct {
		name string
		mode telford.TransportMode
	}{{"direct", telford.Direct}, {"proxy", telford.Proxy}}
}

// pairing is what is measured with and without a feature.
type pairing struct {
	feature, path string
	mode          telford.TransportMode
	callers, size int
}

func (p pairing) String() string {
	return fmt.Sprintf("%s, %s, %d callers, %d B", p.feature, p.path, p.callers, p.size)
}

// runPairs measures what features cost: on and off in one process, right after each
// other, so that whatever else the machine does falls on both.
func runPairs(ctx context.Context, o options, dir string, w io.Writer) error {
	all := slices.DeleteFunc(features(), func(f feature) bool { return !slices.Contains(o.only, f.name) })
	fmt.Fprintf(w, "%d cores, %s; %d pairs of on and off, one after another in one process, %s a cell\n", runtime.NumCPU(), runtime.Version(), o.pairs, o.cell)
	for _, f := range all {
		fmt.Fprintf(w, "  %-12s %s\n", f.name, f.about)
	}
	b, err := makeBed(ctx, dir, append(slices.Clone(all), nothing))
	defer b.close()
	if err != nil {
		return err
	}
	var (
		rows     []measure.Comparison
		failures []error
	)
	for _, size := range o.sizes {
		for _, callers := range o.callers {
			for _, path := range paths() {
				for _, f := range all {
					p := pairing{f.name, path.name, path.mode, callers, size}
					found, err := b.measure(ctx, o, p)
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if err != nil {
						failures = append(failures, fmt.Errorf("%s: %w", p, err))
						fmt.Fprintf(w, "%-40s FAILED: %v\n", p, err)
						continue
					}
					rate := found[0]
					fmt.Fprintf(w, "%-40s %9.0f/s : %9.0f/s  ratio %.3f (%.3f to %.3f)\n", p, rate.Telford, rate.Peer, rate.Ratio, rate.Low, rate.High)
					rows = append(rows, found...)
				}
			}
		}
	}
	fmt.Fprintln(w, "\non : off, medians; the ratio is above 1 where on is better, in parentheses where it lies with a confidence of 95 %")
	err = pairTable(w, rows)
	if o.json != "" {
		err = errors.Join(err, measure.WriteJSON(o.json, rows))
	}
	return errors.Join(append(failures, err)...)
}

// measure alternates between on and off, so that each comes first as often as second.
func (b *bed) measure(ctx context.Context, o options, p pairing) ([]measure.Comparison, error) {
	var on, off []measure.Result
	for i := range o.pairs {
		order := []string{p.feature, nothing.name}
		if i%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, name := range order {
			r, err := b.cell(ctx, o, p, name)
			if err != nil {
				return nil, err
			}
			if name == nothing.name {
				off = append(off, r)
			} else {
				on = append(on, r)
			}
		}
	}
	return compared(p.String(), on, off)
}

// cell measures one half of a pair. What is garbage of the cell before is not paid for in
// this one.
func (b *bed) cell(ctx context.Context, o options, p pairing, name string) (measure.Result, error) {
	runtime.GC()
	ctx, cancel := context.WithTimeout(ctx, o.warmup+o.cell+30*time.Second)
	defer cancel()
	e := b.ends[name]
	loop := measure.Loop{Callers: p.callers, Warmup: o.warmup, For: o.cell}
	return loop.Run(ctx, func(int) (measure.Call, error) { return e.call(p.mode, p.size), nil })
}

// compared makes the rows of a pairing: the rate and the CPU time of a call. Both ends and
// the runtime are in this process, so that the time is that of all of them.
func compared(name string, on, off []measure.Result) ([]measure.Comparison, error) {
	var rows []measure.Comparison
	for _, m := range []struct {
		metric, unit string
		of           func(measure.Result) float64
		more         bool
	}{
		{"rate", "calls/s", func(r measure.Result) float64 { return r.PerSecond }, true},
		{"cpu", "µs", func(r measure.Result) float64 { return r.ClientCPU }, false},
	} {
		with, without := figures(on, m.of), figures(off, m.of)
		better, worse := with, without
		if !m.more {
			better, worse = without, with
		}
		r, err := measure.Pairs(better, worse)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.metric, err)
		}
		rows = append(rows, measure.Comparison{
			Case: name, Metric: m.metric, Unit: m.unit, PeerName: nothing.name,
			Telford: thousandth(m.of(measure.Median(on))), Peer: thousandth(m.of(measure.Median(off))),
			Ratio: thousandth(r.Mean), Low: thousandth(r.Low), High: thousandth(r.High), Pairs: r.Pairs,
		})
	}
	return rows, nil
}

func figures(runs []measure.Result, of func(measure.Result) float64) []float64 {
	list := make([]float64, len(runs))
	for i, r := range runs {
		list[i] = of(r)
	}
	return list
}

func thousandth(v float64) float64 { return math.Round(v*1000) / 1000 }

func pairTable(w io.Writer, rows []measure.Comparison) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "case\tmetric\ton\toff\tunit\tratio")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%.4g\t%.4g\t%s\t%.3f (%.3f to %.3f)\n", r.Case, r.Metric, r.Telford, r.Peer, r.Unit, r.Ratio, r.Low, r.High)
	}
	return tw.Flush()
}
