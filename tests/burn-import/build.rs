//! Has burn-onnx write each shipped model as Burn modules, for the test to compile.

fn main() {
    for name in ["mnist", "faces", "eight-gaussians"] {
        let file = format!("../../models/{name}.onnx");
        println!("cargo::rerun-if-changed={file}");
        burn_onnx::ModelGen::new().input(&file).out_dir("models/").run_from_script();
    }
}
