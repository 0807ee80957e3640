package inventory

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"telford.dev/telford"
	"telford.dev/telford/examples/shop/book"
)

// Whatever is reserved and released, repeated or not, no piece appears or is lost, and
// none is held twice.
func TestNoPieceIsLost(t *testing.T) {
	t.Parallel()
	const pieces = 10
	rapid.Check(t, func(t *rapid.T) {
		s := newStock([]book.Article{{SKU: "TEA", Pieces: pieces}, {SKU: "CUP", Pieces: pieces}})
		held := map[string]int32{}
		sku := map[string]string{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			order := fmt.Sprint(rapid.IntRange(1, 8).Draw(t, "order"))
			if rapid.Bool().Draw(t, "release") {
				s.release(order)
				delete(held, order)
				continue
			}
			article := rapid.SampledFrom([]string{"TEA", "CUP", "POT"}).Draw(t, "sku")
			n := rapid.Int32Range(-1, 6).Draw(t, "pieces")
			r, err := s.reserve(order, article, n)
			if had, ok := held[order]; ok {
				if same := had == n && sku[order] == article; same != (err == nil) || !same && !errors.Is(err, telford.ErrConflict) {
					t.Fatalf("order %s held %d of %s; reserving %d of %s: %v", order, had, sku[order], n, article, err)
				}
				continue
			}
			if err == nil {
				held[order], sku[order] = r.GetQuantity(), article
			}
		}
		sum := map[string]int32{}
		for order, n := range held {
			sum[sku[order]] += n
		}
		for _, l := range s.levels() {
			if l.GetReserved() != sum[l.GetSku()] || l.GetLeft()+l.GetReserved() != pieces || l.GetLeft() < 0 {
				t.Fatalf("%s: %d left, %d reserved, orders hold %d of %d", l.GetSku(), l.GetLeft(), l.GetReserved(), sum[l.GetSku()], pieces)
			}
		}
	})
}

func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	s := newStock([]book.Article{{SKU: "TEA", Pieces: 3}})
	for _, c := range []struct {
		order, sku string
		pieces     int32
		want       error
	}{
		{"", "TEA", 1, telford.ErrInvalidArgument},
		{"A-1", "TEA", 0, telford.ErrInvalidArgument},
		{"A-1", "POT", 1, telford.ErrNotFound},
		{"A-1", "TEA", 4, telford.ErrFailedPrecondition},
	} {
		if _, err := s.reserve(c.order, c.sku, c.pieces); !errors.Is(err, c.want) {
			t.Errorf("reserve %q, %q, %d: %v, want %v", c.order, c.sku, c.pieces, err, c.want)
		}
	}
}
