//! `Content.Read`, called so that the bytes stay where they were received: the generated client copies each piece of a
//! blob into a vector of its own, which for a blob of 512 MB is half a gigabyte moved for nothing.

use super::rpc::MESSAGE_BYTES;
use bytes::Bytes;
use containerd_client::services::v1::ReadContentRequest;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// containerd's `ReadContentResponse`. Its bytes are a part of the buffer of the connection's last message and keep all
/// of that: a small piece of a long life is better copied.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Piece {
    /// Where in the blob they are.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// The pieces of a part of a blob.
pub(super) async fn read(
    channel: Channel,
    request: Request<ReadContentRequest>,
) -> Result<Response<Streaming<Piece>>, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    client.ready().await.map_err(|e| Status::unknown(format!("Service was not ready: {e}")))?;
    let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
    let codec: ProstCodec<ReadContentRequest, Piece> = ProstCodec::default();
    client.server_streaming(request, path, codec).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_client::services::v1::ReadContentResponse;
    use prost::Message;

    #[test]
    fn a_piece_is_containerds_answer_and_its_bytes_are_not_copied() {
        let answer = ReadContentResponse { offset: 5, data: vec![7; 1000] };
        let received = Bytes::from(answer.encode_to_vec());
        let piece = Piece::decode(received.clone()).unwrap();
        assert_eq!((piece.offset, &piece.data[..]), (5, &answer.data[..]));
        assert!(
            received.as_ptr_range().contains(&piece.data.as_ptr()),
            "the bytes lie elsewhere than they were received"
        );
    }
}
