package ipc

import (
	"context"
	"sync"
)

// Batch calls f for every item, at most size at a time: one slice of the items after the
// other, each altogether. It returns the results in the order of the items, or the first
// failure of the slice in which there was one; later slices are not begun then. A size of
// zero means 1,000.
func Batch[T, R any](ctx context.Context, items []T, size int, f func(context.Context, T) (R, error)) ([]R, error) {
	if size <= 0 {
		size = 1000
	}
	results := make([]R, len(items))
	for from := 0; from < len(items); from += size {
		to := min(from+size, len(items))
		if err := each(ctx, items[from:to], results[from:to], to-from, f); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// Concurrently calls f for every item, with so many workers that each take the next item
// when they are done. It returns the results in the order of the items, or the first
// failure, which ends the contexts of the others. Zero workers mean 100.
func Concurrently[T, R any](ctx context.Context, items []T, workers int, f func(context.Context, T) (R, error)) ([]R, error) {
	if workers <= 0 {
		workers = 100
	}
	results := make([]R, len(items))
	if err := each(ctx, items, results, workers, f); err != nil {
		return nil, err
	}
	return results, nil
}

func each[T, R any](ctx context.Context, items []T, results []R, workers int, f func(context.Context, T) (R, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= len(items) && ctx.Err() == nil
	}
	for range min(workers, len(items)) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				var err error
				if results[i], err = f(ctx, items[i]); err != nil {
					cancel(err) // the first one holds
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
