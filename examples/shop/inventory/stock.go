package inventory

import (
	"slices"
	"strings"
	"sync"

	"telford.dev/telford"
	"telford.dev/telford/examples/shop/book"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

// stock is what there is and what is held, safe for concurrent use.
type stock struct {
	mu       sync.Mutex
	articles map[string]*shopv1.StockLevel
	held     map[string]*shopv1.Reservation
}

func newStock(articles []book.Article) *stock {
	s := &stock{articles: map[string]*shopv1.StockLevel{}, held: map[string]*shopv1.Reservation{}}
	for _, a := range articles {
		s.articles[a.SKU] = &shopv1.StockLevel{Sku: a.SKU, Name: a.Name, Left: a.Pieces}
	}
	return s
}

// reserve holds pieces for an order; a second time it answers with what it held.
func (s *stock) reserve(order, sku string, pieces int32) (*shopv1.Reservation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.held[order]; r != nil {
		if r.GetSku() != sku || r.GetQuantity() != pieces {
			return nil, telford.Errorf(telford.CodeConflict, "order %s holds %d of %s already, not %d of %s", order, r.GetQuantity(), r.GetSku(), pieces, sku)
		}
		return r, nil
	}
	a := s.articles[sku]
	switch {
	case order == "":
		return nil, telford.Errorf(telford.CodeInvalidArgument, "the order has no id")
	case pieces < 1:
		return nil, telford.Errorf(telford.CodeInvalidArgument, "%d pieces cannot be reserved", pieces)
	case a == nil:
		return nil, telford.Errorf(telford.CodeNotFound, "there is no article %s", sku)
	case a.GetLeft() < pieces:
		return nil, telford.Errorf(telford.CodeFailedPrecondition, "%d of %s wanted, %d left", pieces, sku, a.GetLeft())
	}
	a.Left -= pieces
	a.Reserved += pieces
	r := &shopv1.Reservation{OrderId: order, Sku: sku, Quantity: pieces, Left: a.GetLeft()}
	s.held[order] = r
	return r, nil
}

// release gives back what an order held; an order that holds nothing is fine.
func (s *stock) release(order string) *shopv1.Reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.held[order]
	if r == nil {
		return &shopv1.Reservation{OrderId: order}
	}
	delete(s.held, order)
	a := s.articles[r.GetSku()]
	a.Left += r.GetQuantity()
	a.Reserved -= r.GetQuantity()
	return &shopv1.Reservation{OrderId: order, Sku: r.GetSku(), Left: a.GetLeft()}
}

// levels is a copy of every article, by sku.
func (s *stock) levels() []*shopv1.StockLevel {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*shopv1.StockLevel
	for _, a := range s.articles {
		all = append(all, &shopv1.StockLevel{Sku: a.GetSku(), Name: a.GetName(), Left: a.GetLeft(), Reserved: a.GetReserved()})
	}
	slices.SortFunc(all, func(a, b *shopv1.StockLevel) int { return strings.Compare(a.GetSku(), b.GetSku()) })
	return all
}
