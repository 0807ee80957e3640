// Package inventory is the service that holds stock for orders, from generated stubs.
// It keeps its stock in memory and starts no goroutines.
package inventory

import (
	"context"

	"google.golang.org/grpc"

	"telford.dev/telford/examples/shop/book"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

// Name is the name of the service.
const Name = "inventory"

// Server implements shop.v1.Inventory.
type Server struct {
	shopv1.UnimplementedInventoryServer
	stock *stock
}

// New fills the shelves.
func New(articles []book.Article) *Server { return &Server{stock: newStock(articles)} }

// Reserve holds stock for an order.
func (s *Server) Reserve(_ context.Context, in *shopv1.ReserveRequest) (*shopv1.Reservation, error) {
	return s.stock.reserve(in.GetOrderId(), in.GetSku(), in.GetQuantity())
}

// Release gives back what an order held.
func (s *Server) Release(_ context.Context, in *shopv1.ReleaseRequest) (*shopv1.Reservation, error) {
	return s.stock.release(in.GetOrderId()), nil
}

// Stock sends the level of every article.
func (s *Server) Stock(_ *shopv1.StockRequest, out grpc.ServerStreamingServer[shopv1.StockLevel]) error {
	for _, level := range s.stock.levels() {
		if err := out.Send(level); err != nil {
			return err
		}
	}
	return nil
}
