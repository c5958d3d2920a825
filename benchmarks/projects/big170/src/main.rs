//! Uses each of its dependencies a little, so that none of them is dropped.

use actix_web::{get, App, HttpResponse, Responder};
use clap::Parser;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 8080)]
    port: u16,
    #[arg(long)]
    serve: bool,
}

#[get("/")]
async fn hello() -> impl Responder {
    HttpResponse::Ok().body("hello")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let file: syn::File = syn::parse_str("fn nothing() {}")?;
    println!("{} items, port {}", file.items.len(), options.port);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await });
    if options.serve {
        actix_web::rt::System::new().block_on(async move {
            actix_web::HttpServer::new(|| App::new().service(hello)).bind(("127.0.0.1", options.port))?.run().await
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_parsed() {
        assert_eq!(syn::parse_str::<syn::File>("fn a() {} fn b() {}").unwrap().items.len(), 2);
    }
}
